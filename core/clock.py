"""Time, as a thing that is handed in: deadlines are monotonic moments, never durations restarted at each level."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the worker asks about time. Any thread."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; the same clock in every process of this host."""
        ...

    def time(self) -> float:
        """Seconds since the epoch, for people and for the wire."""
        ...


class SystemClock:
    """The real clock."""

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()
