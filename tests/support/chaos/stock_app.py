"""The accounting application as a stock Celery application, copied into a test's folder as `stock.py`."""

import json
from pathlib import Path
from typing import Any

from book import Run
from celery import Celery

SETUP = json.loads(Path(__file__).with_name("setup.json").read_text())
app = Celery("account", broker=SETUP["broker"], backend=SETUP["backend"])
app.conf.update(
    task_default_queue=SETUP["task_default_queue"],
    # kombu knows no leases, and Celery acks early unless told otherwise.
    broker_transport_options={"visibility_timeout": SETUP["broker_transport_options"]["visibility_timeout"]},
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)


@app.task(bind=True, name="account.work")
def work(self: Any, seconds: float, retries: int = 0) -> str:
    with Run(self.request.id, self.request.retries) as run:
        run.last(seconds)
    return run.nonce


@app.task(bind=True, name="account.once", acks_late=False)
def once(self: Any, seconds: float) -> str:
    with Run(self.request.id, self.request.retries) as run:
        run.last(seconds)
    return run.nonce
