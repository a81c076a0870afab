"""The application of `qworker demo`: a task for each thing that can become of one. Loaded by the demo and its worker.

Both get the broker by their command line. Tasks that die note each run in a file, because nothing else survives.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from .. import App

app = App("demo", task_default_queue="demo")


@app.task(name="demo.fast")
def fast(number: int) -> int:
    """Do next to nothing."""
    return number + 1


@app.task(name="demo.slow")
def slow(seconds: float) -> float:
    """Take a while."""
    time.sleep(seconds)
    return seconds


@app.task(name="demo.flaky", bind=True, autoretry_for=(ConnectionError,), max_retries=3, default_retry_delay=0.2)
def flaky(self: Any, fail_times: int) -> int:
    """Fail that many times, then succeed; return how often it was retried."""
    if self.request.retries < fail_times:
        raise ConnectionError(f"no luck at run {self.request.retries + 1}")
    return int(self.request.retries)


@app.task(name="demo.failing")
def failing(order: int) -> None:
    """Fail for good."""
    raise ValueError(f"order {order} has no address")


@app.task(name="demo.crashing")
def crashing(notes: str, crash_times: int) -> int:
    """Kill the child that runs it, that many times; then return how often."""
    path = Path(notes)
    runs = path.stat().st_size if path.exists() else 0
    if runs < crash_times:
        with path.open("ab") as file:
            file.write(b".")
        os.kill(os.getpid(), signal.SIGKILL)
    return runs
