"""Time, as a thing that is handed in: deadlines are monotonic moments, never durations restarted at each level."""

from __future__ import annotations

import time
from typing import Final, Protocol

_BOOTTIME: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What the worker asks about time. Any thread."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; the same clock in every process of this host."""
        ...

    def time(self) -> float:
        """Seconds since the epoch, for people and for the wire."""
        ...

    def boottime(self) -> float:
        """As `monotonic`, but it also runs while the machine is suspended, as the broker's clock does."""
        ...


class SystemClock:
    """The real clock."""

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def boottime(self) -> float:
        """Seconds of CLOCK_BOOTTIME (elsewhere than on Linux: of CLOCK_MONOTONIC)."""
        return time.clock_gettime(_BOOTTIME)
