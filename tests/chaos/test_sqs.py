"""Workers on SQS are killed, frozen, cut off, and meet everything that AWS and networks answer: nothing is lost.

Moto cannot be looked into: what is not settled is counted, and dead letters are received from their queue. A delete
takes a request after its 50 ms, which the judge grants. Retries and chains are left out: send before delete means that
a kill between the two may double what follows (docs/sqs.md), which the judge would have to call a broken promise.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import wait_until
from support.chaos import (
    QUEUE,
    Fleet,
    Load,
    Member,
    Office,
    Run,
    Silence,
    boottime,
    demand_none,
    drain,
    office_in,
    on_sqs,
    row,
    scaled,
    storm,
)
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, throttled

Record = Callable[[str, object], None]

KINDS = {"plain": 75, "delayed": 15, "once": 10}
CONCURRENCY = 3
#: Of which moto, on a machine that has much else to do, takes seconds for one request.
LEASE_S = 6
#: 50 ms for company, and a request to a moto that serves several workers on a busy machine.
ACK_S = 1.0
WORKERS = ("-c", str(CONCURRENCY), "-Q", QUEUE, "-l", "ERROR")
_BATCHES = ("DeleteMessageBatch", "ChangeMessageVisibilityBatch")


@pytest.fixture
def office(sqs: MotoServer, redis_url: str, tmp_path: Path) -> Iterator[Office]:
    for name in (QUEUE, "dead"):
        sqs.queue(name)
    options = {"lease_timeout": LEASE_S, "dead_letter_queue": "dead", "wait_time_seconds": 2}
    where = on_sqs(sqs, QUEUE, "dead")
    # Results in Redis: a process that stands still in the middle of a transaction keeps a SQLite file from all others.
    with office_in(tmp_path, where, broker=sqs.url, backend=redis_url, broker_transport_options=options) as office:
        yield office


def finish(
    office: Office, fleet: Fleet, load: Load, record: Record, what: str, faults: dict[str, int], seed: int
) -> int:
    """Wait until all is done, and judge; returns how many runs were repeated."""
    drain(office, fleet, 60.0)
    fleet.stop()
    verdict = office.judge(load.tasks, fleet.faults, ack_s=ACK_S)
    workers = len(fleet.members) or 2
    row(record, what, f"{len(load.tasks)} tasks, {workers} workers × {CONCURRENCY}", faults, verdict, seed=seed)
    demand_none(verdict.complaints, fleet.complaints)
    return verdict.repeated


@pytest.mark.parametrize("kinds", [("master", "tree"), ("child", "spawner")], ids=["workers", "children"])
@pytest.mark.timeout(scaled(180, 1200))
def test_kills_lose_nothing_and_only_what_was_cut_runs_again(
    kinds: tuple[str, ...], office: Office, rng: random.Random, seed: int, record_property: Record
) -> None:
    title = "workers" if "tree" in kinds else "children"
    load = Load(office.app, scaled(120, 2000), rng, kinds=KINDS)
    with Fleet(office.folder, 2, *WORKERS) as fleet:
        fleet.wait_ready()
        strike = lambda: fleet.kill(rng.choice(kinds), rng)  # noqa: E731
        storm(office, fleet, load, strike, rng, every_s=scaled(0.5, 1.5), most=scaled(5, 80), backlog=60)
        finish(office, fleet, load, record_property, f"kill -9, SQS, {title}", fleet.kills, seed)


@pytest.mark.timeout(scaled(180, 1200))
def test_a_worker_that_stood_still_for_two_leases_repeats_only_what_it_ran(
    office: Office, rng: random.Random, seed: int, record_property: Record
) -> None:
    times, wave = scaled(1, 8), 100
    load = Load(office.app, times * wave, rng, kinds=KINDS, longest_s=0.8)
    with Fleet(office.folder, 2, *WORKERS) as fleet:
        fleet.wait_ready()
        for number in range(times):
            load.publish(wave)
            time.sleep(rng.uniform(0.3, 1.0))
            member = busy(office, fleet)
            frozen = fleet.freeze(member, whole=number % 2 == 0)
            while not any(run.ended is None and run.worker == member.name for run in office.runs()):
                fleet.thaw(frozen)  # what it ran has ended before it stood still
                member = busy(office, fleet)
                frozen = fleet.freeze(member, whole=number % 2 == 0)
            since = boottime()
            time.sleep(2 * LEASE_S)
            fleet.thaw(frozen)
            fleet.faults.append(Silence(since, boottime(), member.name, LEASE_S, is_pause=True))
        what = "SIGSTOP of a worker on SQS, 2 leases"
        repeated = finish(office, fleet, load, record_property, what, {"stop": times}, seed)
    assert repeated >= 1, "what a frozen worker ran was run elsewhere"


def busy(office: Office, fleet: Fleet) -> Member:
    """One that runs something longer just now."""
    names = {member.name: member for member in fleet.members}

    def running() -> list[Run]:
        return [run for run in office.runs() if run.ended is None and run.worker in names and run.seen > run.started]

    return names[wait_until(running, "a task runs")[0].worker]


class Nuisance:
    """Throws dice for each request of a worker: what AWS and networks do wrong, none of it for longer than a lease."""

    def __init__(self, proxy: SqsProxy, rng: random.Random) -> None:
        self._proxy = proxy
        self._rng = rng
        self.is_over = False
        self.done: Counter[str] = Counter()
        for action in ("ReceiveMessage", "SendMessageBatch", *_BATCHES):
            proxy.break_(action, lambda asked, action=action: self._throw(action, asked), 1_000_000)  # type: ignore[misc]

    def _throw(self, action: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        if self.is_over or self._rng.random() > 0.15:
            return None
        kinds = ["throttled", "failure", "page", "stall"]
        if action in _BATCHES:
            kinds += ["lost answer", "half an answer", "partial", "clock"]
        elif action == "ReceiveMessage":
            kinds += ["lost answer", "half an answer"]
        what = self._rng.choice(kinds)
        self.done[what] += 1
        return self._do(what, action, asked)

    def _do(self, what: str, action: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        if what == "throttled":
            return throttled(asked)
        if what == "failure":
            return 500, {"__type": "com.amazonaws.sqs#InternalFailure", "message": "We have a problem."}
        if what == "clock":
            return 400, {"__type": "com.amazonaws.sqs#RequestExpired", "message": "Request has expired."}
        if what == "page":
            return 404, {"a proxy": "has no such page"}
        if what == "partial":
            entries = asked["Entries"][::2]
            return 200, {"Failed": [{"Id": e["Id"], "Code": "InternalError", "SenderFault": False} for e in entries]}
        if what == "stall":
            time.sleep(self._rng.uniform(0.0, 0.3))
        elif what == "lost answer":
            self._proxy.drops[action] += 1
        else:
            self._proxy.halves[action] += 1
        return None


@pytest.mark.timeout(scaled(180, 1200))
def test_whatever_aws_and_networks_answer_nothing_is_lost_and_nothing_repeated(
    office: Office, sqs: MotoServer, rng: random.Random, seed: int, record_property: Record
) -> None:
    load = Load(office.app, scaled(120, 2000), rng, kinds=KINDS)
    with SqsProxy(sqs.port) as proxy:
        nuisance = Nuisance(proxy, rng)
        with Fleet(office.folder, 2, *WORKERS, "-b", proxy.url) as fleet:
            fleet.wait_ready()
            storm(office, fleet, load, lambda: None, rng, every_s=1.0, most=0, backlog=60)
            nuisance.is_over = True
            repeated = finish(office, fleet, load, record_property, "SQS is a nuisance", nuisance.done, seed)
    assert repeated == 0
    assert nuisance.done, "something went wrong"
