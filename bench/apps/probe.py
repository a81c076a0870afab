"""What the probe task of every tool does: tell the bench when it started."""

from __future__ import annotations

import os
import time
from typing import Any

_connection: Any = None


def report_start() -> None:
    """Push the moment of the call (seconds of CLOCK_MONOTONIC, one clock for all processes) to the bench."""
    global _connection  # one connection per child, opened by the first probe, which nobody times
    now = time.monotonic()
    if _connection is None:
        import redis

        _connection = redis.Redis.from_url(os.environ["BENCH_BROKER"])
    _connection.lpush("bench:reply", repr(now))
