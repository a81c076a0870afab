"""Deadlines of runs: how many are remembered."""

from __future__ import annotations

from qworker.worker.limits import Limits


def test_short_runs_with_long_limits_leave_no_heap_of_deadlines() -> None:
    latest: dict[int, int] = {}
    limits = Limits(lambda serial, seq: latest.get(serial) == seq)
    for seq in range(20_000):
        latest[seq % 4] = seq
        limits.add(seq % 4, seq, seq * 0.001, 3000.0, 3600.0)
    assert len(limits) < 600
    assert [due.seq for due in limits.due(10_000.0) if latest.get(due.serial) == due.seq] == [
        seq for _ in range(2) for seq in range(19_996, 20_000)
    ]


def test_deadlines_of_all_that_runs_are_kept_however_many_they_are() -> None:
    limits = Limits(lambda serial, seq: True)
    for serial in range(5_000):
        limits.add(serial, serial, 0.0, 0.0, 60.0)
    assert len(limits) == 5_000
    assert len(limits.due(60.0)) == 5_000
