"""Three hosts, one broker: one host is cut off, one is paused, one dies, all at the same time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from support import RedisServer
from support.chaos import (
    QUEUE,
    Fleet,
    Host,
    Load,
    Office,
    Silence,
    boottime,
    demand_none,
    drain,
    namespaces,
    proxied,
    row,
    scaled,
    storm,
    waiting_in,
    why_no_namespaces,
)

Record = Callable[[str, object], None]

HOSTS = 3
CONCURRENCY = 3
BACKLOG = 40
LEASE_S = scaled(3.0, 5.0)


@pytest.fixture
def open_server() -> Iterator[RedisServer]:
    """A server that other hosts reach."""
    with RedisServer("--bind", "0.0.0.0", "--protected-mode", "no") as server:
        yield server


@pytest.fixture(params=["namespaces", "proxies"])
def hosts(request: pytest.FixtureRequest, open_server: RedisServer) -> Iterator[list[Host]]:
    """Three of them."""
    if request.param == "namespaces" and (why := why_no_namespaces()):
        pytest.skip(f"needs unshare: {why}")
    make = namespaces if request.param == "namespaces" else proxied
    with make(HOSTS, open_server.port) as found:
        yield found


@pytest.mark.timeout(scaled(300, 900))
def test_hosts_that_are_cut_off_paused_and_killed_lose_nothing(
    hosts: list[Host],
    open_server: RedisServer,
    open_office: Callable[..., Office],
    rng: random.Random,
    seed: int,
    record_property: Record,
) -> None:
    rounds = scaled(1, 6)
    office = open_office(server=open_server, lease_s=LEASE_S)
    load = Load(office.app, scaled(120, 2000), rng, longest_s=0.8)
    with Fleet(office.folder, HOSTS, "-c", str(CONCURRENCY), "-Q", QUEUE, "-l", "CRITICAL", hosts=hosts) as fleet:
        fleet.wait_ready()
        storm(
            office, fleet, load, partial(strike, office, fleet, load, rng), rng,
            every_s=0.8, most=rounds, backlog=BACKLOG,
        )  # fmt: skip
        drain(office, fleet)
        fleet.stop()
    verdict = office.judge(load.tasks, fleet.faults)
    kind = "proxies" if not hosts[0].prefix else "network namespaces"
    row(
        record_property, f"three hosts ({kind})", f"{len(load.tasks)} tasks, 3 workers × {CONCURRENCY}",
        {"cut off": rounds, "paused": rounds, "killed": rounds},
        verdict, seed=seed,
    )  # fmt: skip
    demand_none(verdict.complaints, fleet.complaints)
    assert verdict.vanished <= rounds * HOSTS * CONCURRENCY
    assert verdict.repeated > 0


def strike(office: Office, fleet: Fleet, load: Load, rng: random.Random) -> bool:
    """For two leases: one is cut off, one paused; the third is killed, and started again at once.

    False while one of them has nothing to lose.
    """
    if not {member.name for member in fleet.members} <= {run.worker for run in office.runs() if run.ended is None}:
        return False
    lonely, sleeping, dying = rng.sample(fleet.members, HOSTS)
    assert lonely.host is not None
    since = boottime()
    lonely.host.cut()
    frozen = fleet.freeze(sleeping, whole=True)
    paused_since = boottime()
    fleet.kill("tree", rng, dying)
    keep_busy(office, fleet, load, 2 * LEASE_S)
    fleet.thaw(frozen)
    lonely.host.mend()
    fleet.faults.append(Silence(since, boottime(), lonely.name, LEASE_S))
    fleet.faults.append(Silence(paused_since, boottime(), sleeping.name, LEASE_S, is_pause=True))
    if not load.is_out:
        keep_busy(office, fleet, load, 2 * LEASE_S)  # until they have found their way back
    return True


def keep_busy(office: Office, fleet: Fleet, load: Load, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fleet.turn()
        load.publish(BACKLOG - waiting_in(office))
        time.sleep(0.05)
