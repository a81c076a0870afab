"""What the children's memory amounts to, from /proc: read when somebody asks, at most every few seconds.

`uss` is memory of a process's own, `pss` that and its share of what several have, `rss` all that it has in memory; so
only `pss` may be added up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Final, NamedTuple

#: One reading takes about 0.5 ms a child.
FRESH_S: Final = 5.0


class Memory(NamedTuple):
    """Of one process, in bytes."""

    rss: int
    pss: int
    uss: int


class MemoryReader:
    """Keeps the last readings. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = -FRESH_S
        self._known: dict[int, Memory] = {}

    def of(self, pids: Collection[int]) -> dict[int, Memory]:
        """The memory of these processes; those that are gone or may not be looked at are left out."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= FRESH_S or not self._known.keys() >= set(pids):
                self._known = {pid: found for pid in pids if (found := _read(pid)) is not None}
                self._read_at = now
            return {pid: self._known[pid] for pid in pids if pid in self._known}


def _read(pid: int) -> Memory | None:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            words = [line.split() for line in file]
    except OSError:
        return None
    found = {line[0]: int(line[1]) * 1024 for line in words if len(line) == 3 and line[2] == "kB"}
    uss = found.get("Private_Clean:", 0) + found.get("Private_Dirty:", 0) + found.get("Private_Hugetlb:", 0)
    return Memory(found.get("Rss:", 0), found.get("Pss:", 0), uss)
