"""Waiting until something is so, with a limit, instead of for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, limit_s: float = 20.0) -> T:
    """Ask `condition` until its answer is true and return that; fail with `what` when the limit is over."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s} s in vain: {what}; last answer {answer!r}")
        time.sleep(0.01)
