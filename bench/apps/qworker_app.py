"""The three tasks as a qworker application."""

from __future__ import annotations

import os

from probe import report_start

from qworker import App

app = App(
    "bench",
    broker=os.environ["BENCH_BROKER"],
    backend=os.environ["BENCH_RESULTS"],
    task_default_queue="bench",
)


@app.task(name="bench.noop", ignore_result=True)
def noop(x: int, y: int) -> None:
    return None


@app.task(name="bench.answer")
def answer(x: int, y: int) -> int:
    return x + y


@app.task(name="bench.probe", ignore_result=True)
def probe(x: int, y: int) -> None:
    report_start()
