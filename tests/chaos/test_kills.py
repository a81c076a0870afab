"""kill -9 of masters, spawners, children and whole workers, at random instants, while tasks of all kinds flow."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from support.chaos import (
    QUEUE,
    Fleet,
    Load,
    Office,
    Verdict,
    demand_none,
    drain,
    office_in,
    on_sqlite,
    row,
    scaled,
    storm,
)

Record = Callable[[str, object], None]

KINDS = ("child", "child", "child", "spawner", "master", "tree")
CONCURRENCY = 4
LEASE_S = 5.0


def killer(fleet: Fleet, rng: random.Random) -> Callable[[], bool]:
    """Kills once each time it is called; every kind comes round."""
    deck: list[str] = []

    def strike() -> bool:
        deck[:] = deck or rng.sample(KINDS, len(KINDS))
        if not fleet.kill(deck[-1], rng):
            return False
        deck.pop()
        return True

    return strike


def check(verdict: Verdict, fleet: Fleet) -> None:
    cut = sum(count for what, count in fleet.kills.items() if what != "child") * CONCURRENCY + fleet.kills["child"]
    assert set(fleet.kills) == set(KINDS), "every kind of kill was tried"
    demand_none(verdict.complaints, fleet.complaints)
    assert verdict.vanished <= cut, "more at-most-once messages never ran than children were killed"


def play(
    office: Office, rng: random.Random, *, count: int, every_s: float, most: int, workers: int
) -> tuple[Verdict, Fleet]:
    load = Load(office.app, count, rng)
    with Fleet(office.folder, workers, "-c", str(CONCURRENCY), "-Q", QUEUE, "-l", "ERROR") as fleet:
        fleet.wait_ready()
        storm(office, fleet, load, killer(fleet, rng), rng, every_s=every_s, most=most)
        drain(office, fleet)
        fleet.stop()
    return office.judge(load.tasks, fleet.faults), fleet


@pytest.mark.timeout(scaled(300, 1500))
def test_nothing_is_lost_and_only_what_was_cut_runs_again(
    open_office: Callable[..., Office], rng: random.Random, seed: int, record_property: Record
) -> None:
    count = scaled(600, 20_000)
    office = open_office(lease_s=LEASE_S)
    verdict, fleet = play(office, rng, count=count, every_s=scaled(0.2, 1.0), most=scaled(18, 500), workers=3)
    row(
        record_property, "kill -9, Redis", f"{count} tasks, 3 workers × {CONCURRENCY}", fleet.kills,
        verdict, seed=seed,
    )  # fmt: skip
    check(verdict, fleet)


@pytest.mark.timeout(scaled(300, 900))
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
        verdict, seed=seed,
    )  # fmt: skip
    check(verdict, fleet)
