"""The tasks as huey tasks, without results."""

from __future__ import annotations

import os

from huey import RedisHuey
from probe import report_start

huey = RedisHuey("bench", url=os.environ["BENCH_BROKER"], results=False)


@huey.task()
def noop(x: int, y: int) -> None:
    return None


@huey.task()
def probe(x: int, y: int) -> None:
    report_start()
