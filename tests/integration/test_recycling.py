"""Children that have done enough, or taken too much, are replaced without a gap."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter

import psutil
import pytest

from qworker import WorkerLostError

from support import Shop, wait_until
from support.stopwatch import Stopwatch


def test_a_child_runs_exactly_as_many_tasks_as_it_may(any_shop: Shop) -> None:
    any_shop.worker("-c", "2", "-Q", "hipri", "-l", "WARNING", "--max-tasks-per-child", "3")
    pids = [r.get(timeout=20) for r in [any_shop.task("pid").delay() for _ in range(30)]]
    assert max(Counter(pids).values()) <= 3
    assert len(set(pids)) >= 10


def test_one_task_per_child_is_quick(shop: Shop) -> None:
    """Celery needs 20 s for six tasks of this kind; the limit here is generous for a loaded machine."""
    worker = shop.worker("-c", "2", "-Q", "hipri", "-l", "WARNING", "--max-tasks-per-child", "1")
    watch = Stopwatch()
    pids = [r.get(timeout=60) for r in [shop.task("pid").delay() for _ in range(100)]]
    assert watch.s < 15
    assert len(set(pids)) == 100
    assert worker.stop() == 0


def test_never_more_tasks_at_once_than_children_were_asked_for(any_shop: Shop) -> None:
    any_shop.worker("-c", "2", "-Q", "hipri", "--max-tasks-per-child", "1")
    long = any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the long task runs")
    others = [any_shop.task("gate").delay(f"other{i}") for i in range(2)]
    wait_until(lambda: len(any_shop.ran()) == 2, "one more runs beside it")
    assert any_shop.task("add").delay(1).status == "PENDING"
    time.sleep(0.5)  # time in which a third one would show
    assert len(any_shop.ran()) == 2
    for name in ("other0", "other1"):
        (any_shop.folder / name).touch()
    assert [r.get(timeout=10) for r in others] == ["other0", "other1"]  # the last task of one child holds nobody up
    (any_shop.folder / "go").touch()
    assert long.get(timeout=10) == "go"


def test_jitter_spreads_the_ends_of_children(any_shop: Shop) -> None:
    limits = ("--max-tasks-per-child", "2", "--recycle-jitter", "4")
    any_shop.worker("-c", "2", "-Q", "hipri", "-l", "WARNING", *limits)
    pids = [r.get(timeout=20) for r in [any_shop.task("pid").delay() for _ in range(60)]]
    assert 2 < max(Counter(pids).values()) <= 6


def test_a_spike_that_is_over_recycles_nobody_and_a_leak_does(shop: Shop) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", "--max-memory-per-child", "60000")
    spike = shop.task("spikes").delay(100)
    wait_until(lambda: shop.ran() == ["before"], "the task runs")
    shop.freeze(psutil.Process(worker.pid))  # or it may look just when the task has taken much
    (shop.folder / "take").touch()
    wait_until(lambda: shop.ran() == ["before", "after"], "the spike is over")
    worker.process.send_signal(signal.SIGCONT)
    time.sleep(2.5)  # two looks: time in which a replacement would be decided
    assert "it is replaced" not in worker.log
    (shop.folder / "end").touch()
    first = spike.get(timeout=10)
    leaky = shop.task("leaks").delay(100).get(timeout=10)
    assert leaky == first
    wait_until(lambda: shop.task("pid").delay().get(timeout=10) != leaky, "the leaky child is replaced")
    assert re.search(r"child 1 has \d+ KiB of memory of its own: it is replaced", worker.log)


def test_a_task_above_the_hard_memory_limit_is_killed_and_says_why(shop: Shop) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", "--max-memory-hard", "80000")
    result = shop.task("eats").delay(150, "never")
    with pytest.raises(WorkerLostError, match="hard limit of 80000 KiB"):
        result.get(timeout=30)
    wait_until(lambda: len(shop.dead()) == 1, "dead-lettered after the third time")
    assert (shop.dead()[0].reason, shop.dead()[0].details["crashes"]) == ("crashed", 3)
    worker.wait_log("KiB of memory, above the hard limit")


def test_a_fresh_child_that_is_over_its_limit_is_an_error_and_no_loop(shop: Shop) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", "--max-memory-per-child", "100")
    worker.wait_log("a fresh child has")
    first = shop.task("pid").delay().get(timeout=10)
    time.sleep(2.5)  # two samples: time in which a loop would show
    assert shop.task("pid").delay().get(timeout=10) == first
    assert worker.log.count("a fresh child has") == 1
