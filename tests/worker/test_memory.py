"""The memory watch: what is over a limit, and for how long that counts."""

from __future__ import annotations

from qworker.worker.memory import MemoryWatch


def test_a_child_over_the_limit_is_told() -> None:
    found: list[tuple[int, int]] = []
    watch = MemoryWatch(100, 0, lambda s, k: found.append((s, k)), lambda s, k: None, {7: 50, 8: 101}.get)
    watch.sample({1: 7, 2: 8})
    assert found == [(2, 101)]


def test_above_the_hard_limit_only_the_hard_one_counts() -> None:
    found: list[str] = []
    watch = MemoryWatch(100, 200, lambda s, k: found.append("soft"), lambda s, k: found.append("hard"), {7: 201}.get)
    watch.sample({1: 7})
    assert found == ["hard"]


def test_a_child_that_was_born_over_the_limit_is_spared_and_its_successor_is_not_by_that() -> None:
    found: list[int] = []
    watch = MemoryWatch(100, 0, lambda s, k: found.append(s), lambda s, k: None, {7: 150, 8: 150}.get)
    watch.is_born(1, 150)
    watch.sample({1: 7, 2: 8})
    watch.sample({2: 8})
    assert found == [2, 2]


def test_a_child_that_was_born_over_the_soft_limit_is_still_killed_at_the_hard_one() -> None:
    found: list[str] = []
    weights = {7: 150}
    watch = MemoryWatch(100, 200, lambda s, k: found.append("soft"), lambda s, k: found.append("hard"), weights.get)
    watch.is_born(1, 150)
    watch.sample({1: 7})
    weights[7] = 250
    watch.sample({1: 7})
    assert found == ["hard"]


def test_a_child_that_cannot_be_read_is_left_alone() -> None:
    watch = MemoryWatch(1, 1, lambda s, k: 1 / 0, lambda s, k: 1 / 0, lambda pid: None)
    watch.sample({1: 7})
