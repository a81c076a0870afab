"""Alarms that a task leaves behind. Called by the child after each run."""

from __future__ import annotations

import signal


def forget_alarm() -> None:
    """Stop an alarm that is still set: it would end the next task. A timer that repeats is a profiler's: it stays."""
    left_s, every_s = signal.getitimer(signal.ITIMER_REAL)
    if left_s and not every_s:
        signal.setitimer(signal.ITIMER_REAL, 0)
