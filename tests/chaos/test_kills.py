"""kill -9 of masters, spawners, children and whole workers, at random instants, while tasks of all kinds flow."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import wait_until
from support.chaos import QUEUE, Fleet, Load, Office, Verdict, office_in, on_sqlite, row, scaled

Record = Callable[[str, object], None]

KINDS = ("child", "child", "child", "spawner", "master", "tree")
CONCURRENCY = 4
LEASE_S = 5.0


def storm(office: Office, fleet: Fleet, load: Load, rng: random.Random, every_s: float, most: int) -> None:
    """Kill about each `every_s`, at `most` so often, while the load flows; then let it drain in peace."""
    next_kill = time.monotonic() + rng.expovariate(1 / every_s)
    look_at = 0.0
    deck: list[str] = []
    while True:
        fleet.turn()
        now = time.monotonic()
        if now >= look_at:
            waiting = list(office.where().values()).count("ready")
            if load.is_out and waiting < CONCURRENCY:
                return
            load.publish(max(0, 150 - waiting))
            look_at = now + 0.1
        if now >= next_kill and sum(fleet.kills.values()) < most:
            deck = deck or rng.sample(KINDS, len(KINDS))
            fleet.kill(deck.pop(), rng)
            next_kill = now + rng.expovariate(1 / every_s)
        time.sleep(0.01)


def drain(office: Office, fleet: Fleet, limit_s: float = 40.0) -> None:
    def settled() -> bool:
        fleet.turn()
        return not office.left()

    try:
        wait_until(settled, "everything is settled", limit_s)
    except AssertionError:
        pass  # the judge says what is left, and where


def check(verdict: Verdict, fleet: Fleet) -> None:
    cut = sum(count for what, count in fleet.kills.items() if what != "child") * CONCURRENCY + fleet.kills["child"]
    assert set(fleet.kills) == set(KINDS), "every kind of kill was tried"
    assert verdict.complaints + fleet.complaints == []
    assert verdict.vanished <= cut, "more at-most-once messages never ran than children were killed"


def play(
    office: Office, rng: random.Random, *, count: int, every_s: float, most: int, workers: int
) -> tuple[Verdict, Fleet]:
    load = Load(office.app, count, rng)
    with Fleet(office.folder, workers, "-c", str(CONCURRENCY), "-Q", QUEUE, "-l", "ERROR") as fleet:
        fleet.wait_ready()
        storm(office, fleet, load, rng, every_s, most)
        drain(office, fleet)
        fleet.stop()
    return office.judge(load.tasks, fleet.faults), fleet


@pytest.mark.timeout(scaled(60, 1500))
def test_nothing_is_lost_and_only_what_was_cut_runs_again(
    open_office: Callable[..., Office], rng: random.Random, seed: int, record_property: Record
) -> None:
    count = scaled(600, 20_000)
    office = open_office(lease_s=LEASE_S)
    verdict, fleet = play(office, rng, count=count, every_s=scaled(0.2, 1.0), most=scaled(18, 500), workers=3)
    row(
        record_property, "kill -9, Redis", f"{count} tasks, 3 workers × {CONCURRENCY}", fleet.kills,
        lost=verdict.lost, repeated=verdict.repeated, recovery_s=verdict.recovery_s, seed=seed,
    )  # fmt: skip
    check(verdict, fleet)


@pytest.mark.timeout(scaled(60, 900))
def test_the_same_on_sqlite(tmp_path: Path, rng: random.Random, seed: int, record_property: Record) -> None:
    count = scaled(400, 3_000)
    url = f"sqlite:///{tmp_path}/broker.db"
    # As with Redis: no test cuts the power, and a slow disk would count as a slow worker.
    options = {"lease_timeout": LEASE_S, "synchronous": "NORMAL"}
    where = on_sqlite(f"{tmp_path}/broker.db")
    with office_in(tmp_path, where, broker=url, backend=url, broker_transport_options=options) as office:
        verdict, fleet = play(office, rng, count=count, every_s=scaled(0.2, 1.0), most=scaled(12, 200), workers=2)
    row(
        record_property, "kill -9, SQLite", f"{count} tasks, 2 workers × {CONCURRENCY}", fleet.kills,
        lost=verdict.lost, repeated=verdict.repeated, recovery_s=verdict.recovery_s, seed=seed,
    )  # fmt: skip
    check(verdict, fleet)
