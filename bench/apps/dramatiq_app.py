"""The tasks as dramatiq actors, without middleware (dramatiq's fastest setting)."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from probe import report_start

broker = RedisBroker(url=os.environ["BENCH_BROKER"], middleware=[])
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="bench.noop", queue_name="bench")
def noop(x: int, y: int) -> None:
    return None


@dramatiq.actor(actor_name="bench.probe", queue_name="bench")
def probe(x: int, y: int) -> None:
    report_start()
