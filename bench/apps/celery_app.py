"""The three tasks as a Celery application."""

from __future__ import annotations

import os

from celery import Celery
from probe import report_start

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"])
app.conf.task_default_queue = "bench"
# More than Celery's default of 4 makes no measurable difference to its drain; kept high to be on its side.
app.conf.worker_prefetch_multiplier = 64


@app.task(name="bench.noop", ignore_result=True)
def noop(x: int, y: int) -> None:
    return None


@app.task(name="bench.answer")
def answer(x: int, y: int) -> int:
    return x + y


@app.task(name="bench.probe", ignore_result=True)
def probe(x: int, y: int) -> None:
    report_start()
