"""The three tasks as a Celery application."""

from __future__ import annotations

import os

from celery import Celery
from probe import report_start

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"])
app.conf.task_default_queue = "bench"
# Prefetch multipliers of 1, 4, 64 and 500 drain at the same speed within the noise, so the default of 4 stays.


@app.task(name="bench.noop", ignore_result=True)
def noop(x: int, y: int) -> None:
    return None


@app.task(name="bench.answer")
def answer(x: int, y: int) -> int:
    return x + y


@app.task(name="bench.probe", ignore_result=True)
def probe(x: int, y: int) -> None:
    report_start()
