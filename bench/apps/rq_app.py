"""The tasks as functions for rq, results not kept."""

from __future__ import annotations

import os
from typing import Any

import redis
from probe import report_start
from rq import Queue
from rq.job import Job

queue = Queue("bench", connection=redis.Redis.from_url(os.environ["BENCH_BROKER"]))


def noop(x: int, y: int) -> None:
    return None


def probe(x: int, y: int) -> None:
    report_start()


def delay(function: Any, *args: Any) -> Job:
    return queue.enqueue(function, *args, result_ttl=0)
