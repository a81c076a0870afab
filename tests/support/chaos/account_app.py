"""The accounting application, copied into a test's folder as `account.py`; `setup.json` beside it says how."""

import json
from pathlib import Path
from typing import Any

from book import Run

from qworker import App

SETUP = json.loads(Path(__file__).with_name("setup.json").read_text())
app = App("account", **SETUP)


@app.task(bind=True, max_retries=None)
def work(self: Any, seconds: float, retries: int = 0) -> str:
    """Last so long; fail the first `retries` attempts. Returns the name of the run."""
    with Run(self.request.id, self.request.retries) as run:
        run.last(seconds)
    if self.request.retries < retries:
        raise self.retry(countdown=0.05)
    return run.nonce


@app.task(bind=True, acks_late=False)
def once(self: Any, seconds: float) -> str:
    """The same at most once."""
    with Run(self.request.id, self.request.retries) as run:
        run.last(seconds)
    return run.nonce


@app.task(bind=True)
def gate(self: Any, name: str) -> str:
    """Last until the test makes a file of this name."""
    with Run(self.request.id, self.request.retries) as run:
        run.wait_for(name)
    return run.nonce
