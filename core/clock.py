"""Time, as a thing that is handed in: deadlines are monotonic moments, never durations restarted at each level."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

_BOOTTIME: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _nothing() -> float:
    return 0.0


_base: Callable[[], float] = _nothing


def wall_time() -> float:
    """Seconds since the epoch, for due times and expiries.

    In a worker whose broker has a clock, by that one: this host's may be wrong, or jump, and a message that another
    host calls due must not wait for it. Elsewhere by this host's. Any thread.
    """
    base = _base()
    return time.clock_gettime(_BOOTTIME) + base if base else time.time()


def follow_broker(base: Callable[[], float]) -> None:
    """From now on `wall_time` of this process is `boottime` and what `base` returns; 0 = not known (yet)."""
    global _base
    _base = base


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
