"""Waiting until something is so, with a limit, instead of for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .stopwatch import Stopwatch

#: However busy the machine is.
_LONGEST = 4

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, limit_s: float = 20.0) -> T:
    """Ask `condition` until its answer is true and return that; fail with `what` when the limit is over.

    Time in which the machine had too much to do does not count.
    """
    watch = Stopwatch()
    deadline = time.monotonic() + limit_s
    while True:
        answer = condition()
        if answer:
            return answer
        now = time.monotonic()
        if now > deadline and (watch.s > limit_s or now > deadline + (_LONGEST - 1) * limit_s):
            raise AssertionError(f"waited {limit_s} s in vain: {what}; last answer {answer!r}")
        time.sleep(0.01)
