"""Time limits of running messages, as deadlines.

Owned by the consumer thread; a child reports the limits when it starts a message.

Also the verdict on a child that is killed for its message: the death that follows is about that message and no other.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Fewer deadlines than this are not looked through.
_FEW: Final = 256


@dataclass(frozen=True, slots=True)
class Limit:
    """The hard limit of one run: how long, and what becomes of the message (see `Job`)."""

    hard_s: float
    acks_on_timeout: bool
    stores: bool


class Due(NamedTuple):
    """A deadline that has come: which message, in which child, soft or hard."""

    at: float
    seq: int
    serial: int
    is_hard: bool
    limit_s: float


class Limits:
    """All deadlines. One that outlives its message does no harm: the caller looks whether the message still runs.

    `may_run` tells by serial and number whether a message may be running still: those of messages that have ended are
    dropped once they are the larger part, because short tasks with long limits leave thousands a second.
    """

    def __init__(self, may_run: Callable[[int, int], bool]) -> None:
        self._may_run = may_run
        self._heap: list[Due] = []
        self._most = _FEW

    def __len__(self) -> int:
        """How many deadlines are remembered."""
        return len(self._heap)

    def add(self, serial: int, seq: int, started_at: float, soft_s: float, hard_s: float) -> None:
        """A message has started that may run so long; 0 = no limit."""
        if soft_s:
            heapq.heappush(self._heap, Due(started_at + soft_s, seq, serial, False, soft_s))
        if hard_s:
            heapq.heappush(self._heap, Due(started_at + hard_s, seq, serial, True, hard_s))
        if len(self._heap) > self._most:
            self._drop_ended()

    def _drop_ended(self) -> None:
        self._heap = [due for due in self._heap if self._may_run(due.serial, due.seq)]
        heapq.heapify(self._heap)
        self._most = max(_FEW, 2 * len(self._heap))

    def next_at(self) -> float:
        """The earliest deadline; infinity when there is none."""
        return self._heap[0].at if self._heap else math.inf

    def due(self, now: float) -> list[Due]:
        """Take the deadlines that have come."""
        due = []
        while self._heap and self._heap[0].at <= now:
            due.append(heapq.heappop(self._heap))
        return due
