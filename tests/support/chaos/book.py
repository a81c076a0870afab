"""The book of runs: each run writes down when it began, that it lives, and when it ended. Copied into a test's folder.

One `write` to a file opened with O_APPEND for each record: what was written survives `kill -9` of the writer. All
records have one length that divides a page, so that none can be torn by a kill between two pages. Loaded by the
accounting applications (`account_app.py`, `celery_app.py`) and by nothing else, so that a Celery worker can use it.
"""

import os
import secrets
import time
from pathlib import Path

LENGTH = 128
PATH = Path(__file__).with_name("book.txt")
WORKER = os.environ.get("CHAOS_WORKER", "-")
TICK_S = 0.025


class Run:
    """One run of a task. Leaving the block by an exception is written down as `cut`, otherwise as `end`."""

    def __init__(self, task_id: str, attempt: int) -> None:
        self.nonce = secrets.token_hex(5)
        self._what = f"{task_id} {attempt} {self.nonce} {WORKER}"
        self._book = os.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __enter__(self) -> "Run":
        self._note("start")
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._note("cut" if kind else "end")
        os.close(self._book)

    def last(self, seconds: float) -> None:
        """Take so long, and write down now and then that this run lives."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, TICK_S))
            self._note("tick")

    def wait_for(self, name: str, limit_s: float = 60.0) -> None:
        """Live until the test makes a file of this name."""
        deadline = time.monotonic() + limit_s
        while not PATH.with_name(name).exists() and time.monotonic() < deadline:
            self.last(TICK_S)

    def _note(self, kind: str) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        text = f"{kind} {self._what} {os.getpid()} {os.getppid()} {now:.6f}"
        record = text.ljust(LENGTH - 1).encode() + b"\n"
        if len(record) != LENGTH or os.write(self._book, record) != LENGTH:
            raise RuntimeError(f"the book cannot hold {text!r}")
