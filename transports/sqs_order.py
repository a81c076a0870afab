"""Which queue is polled next, and in which order the buffer is emptied: `queue_order_strategy` on SQS.

What waits on a queue cannot be seen there, so the order is kept twice: roughly in choosing what to poll, and exactly in
handing over what has come. Used by the pollers, under their lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from .order import Levels, Order, Place, carry_out

_T = TypeVar("_T")
_STRICT = ("sorted", "priority")


class Turns:
    """The order of one consumer. Raises ConfigError for options that do not fit."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._order = Order(options)
        self._is_strict = options.get("queue_order_strategy") in _STRICT
        self._share: float = options.get("starvation_share", 0.1)
        self._weights: Mapping[str, float] = options.get("queue_weights") or {}
        self._names: Sequence[str] = ()
        self._levels: Levels | None = None
        self._had: dict[str, float] = {}
        self._owed = 0.0  # messages that queues behind the first busy one are owed

    def take(self, buffers: Mapping[str, deque[_T]], names: Sequence[str], limit: int) -> list[_T]:
        """Take up to `limit` out of the buffers, in the order of the strategy."""
        wanted = self._order.queues(names)
        if self._levels is None or list(wanted) != self._names:
            self._names = list(wanted)
            self._levels = self._order.levels([[(name, 0) for name in wanted]])
        levels, runs = self._levels, []

        def read(place: Place, count: int) -> tuple[int, bool]:
            buffer = buffers[place[0]]
            run = [buffer.popleft() for _ in range(min(count, len(buffer)))]
            if run:
                runs.append(run)
            return len(run), not buffer

        if limit <= 0 or not any(buffers.values()):
            return []
        taken = carry_out(self._order.plan(levels, limit), levels, limit, read)
        return [one for at in self._order.took(levels, taken) for one in runs[at]]

    def next(self, ready: Collection[str], busy: Sequence[str]) -> str | None:
        """Of the `busy` queues, the one whose turn it is, if it is `ready` to be polled now."""
        hungry = [name for name in self._sorted(busy) if name in ready]
        if not hungry or not self._is_strict:
            return min(hungry, key=self._had_of, default=None)
        first = self._sorted(busy)[0]
        others = [name for name in hungry if name != first]
        if self._owed >= 1 and others:
            return min(others, key=self._had_of)
        return first if first in ready else None

    def got(self, name: str, count: int) -> None:
        """So many have come from this queue."""
        if not count:
            self._had.pop(name, None)  # who has nothing waiting saves nothing up
            return
        least = min(self._had.values(), default=0.0)
        self._had[name] = max(self._had.get(name, least), least) + count / self._weights.get(name, 1.0)
        is_first = next(iter(self._sorted(list(self._had))), name) == name
        self._owed = max(0.0, self._owed + (self._share * count if is_first else -count))

    def _sorted(self, names: Sequence[str]) -> list[str]:
        """In the order of the strategy: as they are consumed, which for `sorted` is by name."""
        return sorted(names, key=lambda name: self._names.index(name) if name in self._names else len(self._names))

    def _had_of(self, name: str) -> float:
        return self._had.get(name, 0.0)
