"""The children's memory, looked at about once a second, also while tasks run. Owned by the master's main thread.

What counts is memory of the child's own (USS) now, not its peak: pages that it shares with the spawner cost nothing and
are not held against it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ..core import log_events, logs

logger = logging.getLogger("qworker.worker")


class MemoryWatch:
    """Compares each child with the limits (KiB; 0 = none).

    `on_soft` and `on_hard` get a child's serial number and the reading.
    """

    def __init__(
        self,
        limit_kib: int,
        hard_kib: int,
        on_soft: Callable[[int, int], None],
        on_hard: Callable[[int, int], None],
        read_kib: Callable[[int], int | None] | None = None,
    ) -> None:
        self._limit_kib = limit_kib
        self._hard_kib = hard_kib
        self._on_soft = on_soft
        self._on_hard = on_hard
        self._read_kib = read_kib or own_memory_kib
        self._born_over: dict[int, int] = {}  # what those had before their first task that were over a limit then
        self._has_said_so = False

    @property
    def is_needed(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self._limit_kib or self._hard_kib)

    def is_born(self, serial: int, kib: int) -> None:
        """A child is ready. One that is over a limit already is spared that one: its successor would be like it."""
        limit_kib = min(limit for limit in (self._limit_kib, self._hard_kib) if limit)
        if kib <= limit_kib:
            return
        self._born_over[serial] = kib
        if not self._has_said_so:
            self._has_said_so = True
            logs.say(
                logger,
                logging.ERROR,
                log_events.MEMORY_LIMIT_TOO_LOW,
                "a fresh child has {kib} KiB of its own already, above its memory limit of {limit_kib}; such "
                "children are kept: raise the limit or import less",
                kib=kib,
                limit_kib=limit_kib,
            )

    def sample(self, children: Mapping[int, int]) -> None:
        """Read every child (serial number → pid) once."""
        for serial, pid in children.items():
            kib = self._read_kib(pid)
            if kib is None:
                continue
            born = self._born_over.get(serial, 0)
            if kib > self._hard_kib >= born and self._hard_kib:
                self._on_hard(serial, kib)
            elif kib > self._limit_kib >= born and self._limit_kib:
                self._on_soft(serial, kib)
        for serial in self._born_over.keys() - children.keys():
            del self._born_over[serial]


def own_memory_kib(pid: int) -> int | None:
    """Memory of a process that it shares with no other, in KiB; None when it is gone or may not be read."""
    import psutil  # 20 ms that a worker without memory limits does not spend

    try:
        return int(psutil.Process(pid).memory_full_info().uss) // 1024
    except (psutil.Error, AttributeError):
        return None
