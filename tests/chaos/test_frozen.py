"""A worker that stands still for twice its lease: others take over, and what it does later counts for nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from support import wait_until
from support.chaos import QUEUE, Fleet, Load, Office, Silence, Task, boottime, demand_none, row, scaled

Record = Callable[[str, object], None]

CONCURRENCY = 3
LEASE_S = scaled(3.0, 5.0)


@pytest.mark.parametrize("whole", [False, True], ids=["its master alone", "all its processes"])
@pytest.mark.timeout(scaled(300, 600))
def test_a_worker_that_stood_still_past_its_lease_starts_and_settles_nothing_that_it_has_lost(
    whole: bool, open_office: Callable[..., Office], rng: random.Random, seed: int, record_property: Record
) -> None:
    count, times = scaled(80, 1500), scaled(1, 8)
    office = open_office(lease_s=LEASE_S)
    load = Load(office.app, count, rng, longest_s=1.0)
    with Fleet(office.folder, 2, "-c", str(CONCURRENCY), "-Q", QUEUE, "-l", "CRITICAL") as fleet:
        fleet.wait_ready()
        for freezes_left in reversed(range(times)):
            keep_busy(office, load, rng.uniform(0.3, 1.0))
            stand_still(fleet, f"go {freezes_left}", office, load, whole=whole)
            if freezes_left:
                keep_busy(office, load, LEASE_S)
        while not load.is_out:
            keep_busy(office, load, 0.1)
        office.wait_settled()
        fleet.stop()
    verdict = office.judge(load.tasks, fleet.faults)
    what = "SIGSTOP of a worker, 2 leases" if whole else "SIGSTOP of a master, 2 leases"
    row(
        record_property, what, f"{len(load.tasks)} tasks, 2 workers × {CONCURRENCY}", {"stop": times},
        verdict, seed=seed,
    )  # fmt: skip
    demand_none(verdict.complaints, fleet.complaints)
    assert verdict.repeated >= times, "a frozen worker's running tasks ran elsewhere"


def keep_busy(office: Office, load: Load, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        waiting = list(office.where().values()).count("ready")
        load.publish(max(0, 30 - waiting))
        time.sleep(0.05)


def stand_still(fleet: Fleet, name: str, office: Office, load: Load, *, whole: bool) -> None:
    """The worker that has just begun with a task, which does not end before."""
    gate = office.task("gate").delay(name)
    load.tasks.append(Task(gate.id))
    (run,) = wait_until(lambda: [run for run in office.runs() if run.key[0] == gate.id], "the task runs")
    member = next(one for one in fleet.members if one.name == run.worker)
    frozen = fleet.freeze(member, whole=whole)
    since = boottime()
    try:
        keep_busy(office, load, 2 * LEASE_S)
        office.open_gate(name)
    finally:
        fleet.thaw(frozen)
    fleet.faults.append(Silence(since, boottime(), member.name, LEASE_S, is_pause=True))


def test_its_late_result_does_not_overwrite_that_of_the_run_which_counts(open_office: Callable[..., Office]) -> None:
    office = open_office(lease_s=2.0)
    with Fleet(office.folder, 2, "-c", "1", "-Q", QUEUE, "-l", "ERROR") as fleet:
        fleet.wait_ready()
        result = office.task("gate").delay("go")
        (first,) = wait_until(office.runs, "the task runs")
        member = next(one for one in fleet.members if one.name == first.worker)
        since = boottime()
        frozen = fleet.freeze(member, whole=True)
        wait_until(lambda: len(office.runs()) == 2, "another worker runs it")
        office.open_gate("go")
        winner = result.get(timeout=40)
        office.wait_settled()
        fleet.thaw(frozen)
        silence = Silence(since, boottime(), member.name, 2.0)
        wait_until(lambda: all(run.ended for run in office.runs()), "the first run ends as well")
        fleet.stop()  # whatever it still had to say has been said now
    assert result.result == winner
    assert winner != first.nonce
    assert office.judge([Task(result.id)], [silence]).complaints == []
