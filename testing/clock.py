"""A clock that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """A Clock whose time passes only by `advance`. Any thread may read it, one thread moves it."""

    def __init__(self, *, monotonic: float = 1000.0, time: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._time = time

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return self._monotonic

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._time

    def boottime(self) -> float:
        """The same as `monotonic`: this machine is never suspended."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks. Raises ValueError for a step back, which no monotonic clock takes."""
        if seconds < 0:
            raise ValueError(f"time does not go back: advance({seconds})")
        self._monotonic += seconds
        self._time += seconds
