"""Redis dies, forgets scripts, hangs up, pauses, fills up, is emptied: workers live through it and repeat nothing."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
import redis

from support import RedisServer, wait_until
from support.chaos import (
    QUEUE,
    Amnesia,
    Fault,
    Fleet,
    Load,
    Office,
    Task,
    boottime,
    demand_none,
    drain,
    row,
    scaled,
    storm,
)

Record = Callable[[str, object], None]

CONCURRENCY = 4
LEASE_S = 5.0
WORKERS = ("-c", str(CONCURRENCY), "-Q", QUEUE, "-l", "ERROR")
#: With `appendfsync everysec`, what a killed server was told in so many seconds before may be forgotten.
EVERYSEC_S = 2.0


@pytest.mark.parametrize("fsync", ["always", "everysec"])
@pytest.mark.timeout(scaled(300, 900))
def test_a_redis_that_is_killed_and_comes_back_with_its_file_costs_nothing(
    fsync: str,
    durable_server: RedisServer,
    server: RedisServer,
    open_office: Callable[..., Office],
    rng: random.Random,
    seed: int,
    record_property: Record,
) -> None:
    broker = durable_server if fsync == "always" else server
    office = open_office(server=broker, lease_s=LEASE_S)
    faults: list[Fault] = []
    kills = 0

    def strike() -> None:
        nonlocal kills
        kills += 1
        since = boottime()
        broker.stop()
        time.sleep(rng.uniform(0.0, scaled(1.0, LEASE_S * 1.5)))
        broker.start()
        if fsync == "everysec":
            faults.append(Amnesia(since - EVERYSEC_S, boottime()))

    load = Load(office.app, scaled(300, 3000), rng)
    with Fleet(office.folder, 2, *WORKERS) as fleet:
        fleet.wait_ready()
        storm(office, fleet, load, strike, rng, every_s=scaled(1.0, 4.0), most=scaled(2, 12))
        drain(office, fleet)
        fleet.stop()
    verdict = office.judge(load.tasks, faults)
    row(
        record_property, f"kill -9 of Redis, AOF {fsync}", f"{len(load.tasks)} tasks, 2 workers × {CONCURRENCY}",
        {"restart": kills}, verdict, seed=seed,
    )  # fmt: skip
    demand_none(verdict.complaints, fleet.complaints)


class Nuisance:
    """What a running server, or whoever may command it, can do to its clients."""

    def __init__(self, server: RedisServer, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self.done: Counter[str] = Counter()

    def __call__(self) -> None:
        what = min(KINDS, key=lambda kind: (self.done[kind], self._rng.random()))
        self.done[what] += 1
        with self._server.client() as client:
            KINDS[what](client, self._rng)


def hang_up(client: redis.Redis, rng: random.Random) -> None:
    for kind in ("normal", "pubsub"):
        client.client_kill_filter(_type=kind, skipme=True)


def hang_up_on_one(client: redis.Redis, rng: random.Random) -> None:
    others = [one["id"] for one in client.client_list() if one["id"] != str(client.client_id())]
    if others:
        client.client_kill_filter(_id=rng.choice(others))


def pause(client: redis.Redis, rng: random.Random) -> None:
    client.client_pause(rng.randrange(100, scaled(1000, 7000)))  # the longest: more than the lease


def flush_scripts(client: redis.Redis, rng: random.Random) -> None:
    client.script_flush()


def fill_up(client: redis.Redis, rng: random.Random) -> None:
    client.config_set("maxmemory", 1)
    time.sleep(rng.uniform(0.2, 1.0))
    client.config_set("maxmemory", 0)


KINDS: dict[str, Callable[[redis.Redis, random.Random], None]] = {
    "CLIENT KILL of all": hang_up,
    "CLIENT KILL of one": hang_up_on_one,
    "CLIENT PAUSE": pause,
    "SCRIPT FLUSH": flush_scripts,
    "memory full": fill_up,
}


@pytest.mark.timeout(scaled(300, 900))
def test_no_nuisance_of_a_running_redis_loses_or_repeats_anything(
    server: RedisServer, open_office: Callable[..., Office], rng: random.Random, seed: int, record_property: Record
) -> None:
    office = open_office(lease_s=LEASE_S)
    nuisance = Nuisance(server, rng)
    load = Load(office.app, scaled(300, 4000), rng)
    with Fleet(office.folder, 2, *WORKERS) as fleet:
        fleet.wait_ready()
        storm(office, fleet, load, nuisance, rng, every_s=0.4, most=scaled(10, 100))
        drain(office, fleet)
        fleet.stop()
    verdict = office.judge(load.tasks, ())
    row(
        record_property, "Redis is a nuisance", f"{len(load.tasks)} tasks, 2 workers × {CONCURRENCY}", nuisance.done,
        verdict, seed=seed,
    )  # fmt: skip
    demand_none(verdict.complaints, fleet.complaints)
    assert set(nuisance.done) == set(KINDS)


def test_a_redis_that_was_emptied_is_told_in_the_log_and_the_worker_goes_on(
    server: RedisServer, open_office: Callable[..., Office], record_property: Record
) -> None:
    office = open_office(lease_s=1.5)
    with Fleet(office.folder, 1, *WORKERS) as fleet:
        fleet.wait_ready()
        gates = [office.task("gate").delay("go") for _ in range(CONCURRENCY)]
        waiting = [office.task("work").delay(0.0) for _ in range(20)]
        wait_until(lambda: len(office.runs()) == CONCURRENCY, "all children are busy")
        with server.client() as client:
            client.flushall()
        forgotten = [Task(result.id, published=1.0) for result in (*gates, *waiting)]
        log = fleet.members[0].worker
        log.wait_log("no longer on the broker")
        office.open_gate("go")
        after = [office.task("work").delay(0.0) for _ in range(20)]
        tasks = [Task(result.id) for result in after]
        for result in after:
            result.get(timeout=40)
        wait_until(lambda: all(run.ended for run in office.runs()), "all runs end")
        office.wait_settled()
        fleet.stop()
    verdict = office.judge([*forgotten, *tasks], [Amnesia(0.0, 2.0)], with_results=False)
    row(
        record_property, "FLUSHALL", f"{len(forgotten)} messages, 1 worker × {CONCURRENCY}", {"FLUSHALL": 1},
        verdict,
    )  # fmt: skip
    demand_none(verdict.complaints, fleet.complaints)
