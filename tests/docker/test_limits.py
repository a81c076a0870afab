"""What the kernel allows a container is seen, told and survived: CPU quota, memory limit, the kill at that limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qworker import WorkerLostError

from support import Shop, wait_until
from support.containers import Container

Start = Callable[..., Container]
Group = Callable[..., list[Path]]

MIB = 1024 * 1024


def test_a_quota_is_the_default_concurrency_and_the_banner_tells_both_limits(worker: Start, group: Group) -> None:
    container = worker("-c", "auto", groups=group(memory=512 * MIB, cpus=0.5)).wait_ready()
    assert "concurrency: 1 (prefork; 0.5 CPUs of quota on a " in container.log
    assert "memory:      512 MiB (cgroup)" in container.log
    assert len(container.children()) == 1


def test_children_that_do_not_fit_are_told_of_by_worker_and_doctor(worker: Start, group: Group) -> None:
    groups = group(memory=256 * MIB)
    env = {"QWORKER_MAX_MEMORY_HARD": str(128 * 1024)}
    complaint = "2 children that may have 128 MiB each (--max-memory-hard) need 256 MiB, and the cgroup allows 256 MiB"
    container = worker(groups=groups, env=env).wait_ready()
    assert container.log.count(complaint) == 1
    doctor = worker("doctor", groups=groups, env=env)
    assert doctor.wait() == 1
    assert f"CHECK memory: {complaint}" in doctor.log
    content = worker("doctor", groups=groups, env={"QWORKER_MAX_MEMORY_HARD": "1024"})
    content.wait()
    assert "broker: " in content.log
    assert "CHECK memory" not in content.log


def test_the_kernels_kill_of_a_child_costs_the_task_alone(worker: Start, shop: Shop, group: Group) -> None:
    """The kernel takes the largest process of the group: the child whose task it is, each of the three times."""
    container = worker(groups=group(memory=256 * MIB)).wait_ready()
    before = container.first.pid
    other = shop.task("gate").delay("go")
    greedy = shop.task("eats").delay(600, "never")
    with pytest.raises(WorkerLostError):
        greedy.get(timeout=40)
    assert shop.ran() == ["start go"]  # it never had what it wanted, and its neighbour was never started again
    (dead,) = wait_until(shop.dead, "the message is in the dead-letter store")
    assert (dead.reason, dead.details["crashes"]) == ("crashed", 3)
    assert "SIGKILL" in dead.details["cause"]
    (shop.folder / "go").touch()
    assert other.get(timeout=20) == "go"
    assert container.first.pid == before
    wait_until(lambda: len(container.children()) == 2, "the killed child is replaced")
    container.stop()
    assert container.wait() == 0


def test_the_hard_limit_comes_before_the_kernel_and_says_why(worker: Start, shop: Shop, group: Group) -> None:
    worker(groups=group(memory=512 * MIB), env={"QWORKER_MAX_MEMORY_HARD": str(100 * 1024)}).wait_ready()
    with pytest.raises(WorkerLostError, match="hard limit of 102400 KiB"):
        shop.task("eats").delay(200, "never").get(timeout=40)
