"""Children whose limits the cgroup does not allow are spoken of; those that fit are not."""

from __future__ import annotations

import pytest

from qworker.worker.headroom import overcommitment

MIB = 1024 * 1024


def told(children: int, allowed: int | None, *, soft: int | None = None, hard: int | None = None) -> str:
    limits = {"worker_max_memory_per_child": soft, "worker_max_memory_hard": hard}
    return overcommitment(children, limits, None if allowed is None else allowed * MIB)


@pytest.mark.parametrize("limits", [{"soft": 128 * 1024}, {"hard": 128 * 1024}, {"soft": 1024, "hard": 128 * 1024}])
def test_children_that_need_all_that_is_allowed_need_too_much(limits: dict[str, int]) -> None:
    assert "4 children that may have 128 MiB each" in told(4, 512, **limits)
    assert told(4, 513, **limits) == ""


def test_the_option_that_decides_is_named() -> None:
    assert "lower --concurrency or --max-memory-hard" in told(2, 100, soft=10, hard=100 * 1024)
    assert "lower --concurrency or --max-memory-per-child" in told(2, 100, soft=100 * 1024)


def test_without_a_cgroup_or_without_limits_nothing_is_said() -> None:
    assert told(64, None, hard=1 << 30) == ""
    assert told(64, 1) == ""
