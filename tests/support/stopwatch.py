"""How long something took, less the time in which anybody on this machine waited for a processor or a disk.

For promises like "within its time-out": they are the program's, not those of a machine with more work than processors.
The kernel counts the waits (/proc/pressure); without its count the time is the plain one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_WAITS = ("/proc/pressure/cpu", "/proc/pressure/io")


class Stopwatch:
    """Runs from its making."""

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), _waited_s()

    @property
    def s(self) -> float:
        """Seconds until now: never more than have passed."""
        passed = time.monotonic() - self._began
        return max(0.0, passed - (_waited_s() - self._waited))


def took_s(action: Callable[[], object]) -> float:
    """How long `action` takes."""
    watch = Stopwatch()
    action()
    return watch.s


def _waited_s() -> float:
    total_us = 0
    for path in _WAITS:
        try:
            some = Path(path).read_text().partition("\n")[0]
        except OSError:
            continue
        total_us += int(some.rpartition("total=")[2])
    return total_us / 1e6
