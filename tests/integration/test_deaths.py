"""Children, spawners and whole workers die; messages do not."""

from __future__ import annotations

import signal

import psutil
import pytest

from qworker import WorkerLostError

from support import Shop, wait_until
from support.stopwatch import Stopwatch


def test_a_message_whose_child_died_runs_again_at_once(any_shop: Shop) -> None:
    worker = any_shop.worker()
    result = any_shop.task("kill_child_once").delay("x")
    assert result.get(timeout=10) == "x"
    assert any_shop.ran() == ["x", "x"]
    worker.wait_log("the child running it died of exit code 7")


def test_the_third_crash_is_the_last_and_says_why(any_shop: Shop) -> None:
    any_shop.worker()
    result = any_shop.task("kill_child").delay("again")
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        result.get(timeout=20)
    assert any_shop.ran() == ["again"] * 3
    wait_until(lambda: len(any_shop.dead()) == 1, "the message is in the dead-letter store")
    dead = any_shop.dead()[0]
    assert (dead.reason, dead.crashes) == ("crashed", 3) or (dead.reason, dead.details["crashes"]) == ("crashed", 3)
    assert "SIGKILL" in dead.details["cause"]
    assert dead.details["peak_kib"] > 1000
    assert any_shop.in_flight() == 0


def test_a_fault_in_c_code_leaves_its_stack_in_the_dead_letter(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.task("segfault").delay()
    wait_until(lambda: len(any_shop.dead()) == 1, "the message is in the dead-letter store")
    details = any_shop.dead()[0].details
    assert "SIGSEGV" in details["cause"]
    assert "in segfault" in details["stack"]


def test_other_children_do_not_notice_a_crash(any_shop: Shop) -> None:
    any_shop.worker("-c", "2", "-Q", "hipri")
    any_shop.task("gate").delay("long")
    wait_until(lambda: any_shop.ran() == ["start long"], "the long task runs")
    any_shop.task("kill_child").delay("x")
    short = [any_shop.task("add").delay(i) for i in range(30)]
    assert [r.get(timeout=20) for r in short] == list(range(30))
    (any_shop.folder / "long").touch()
    wait_until(lambda: "end long" in any_shop.ran(), "the long task ends")
    assert any_shop.ran().count("start long") == 1


def test_a_crash_of_a_task_that_must_not_be_repeated_is_its_failure(any_shop: Shop) -> None:
    any_shop.worker()
    result = any_shop.task("fragile").delay()
    with pytest.raises(WorkerLostError, match="exit code 9"):
        result.get(timeout=10)
    assert any_shop.dead() == []


def test_a_crashed_at_most_once_task_is_not_repeated(any_shop: Shop) -> None:
    any_shop.worker()
    result = any_shop.task("once_fatal").delay("x")
    with pytest.raises(WorkerLostError):
        result.get(timeout=10)
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    assert any_shop.ran() == ["x"]


def test_what_a_task_leaves_behind_keeps_nobody_waiting(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "one child is busy all the time")
    watch = Stopwatch()
    any_shop.task("leaves_a_copy").delay()
    try:
        wait_until(lambda: len(any_shop.dead()) == 1, "dead-lettered after the third time")
        assert any_shop.task("add").delay(1).get(timeout=20) == 1
        assert watch.s < 2.0
    finally:
        for line in any_shop.ran():
            if line.startswith("copy "):
                psutil.Process(int(line.split()[1])).kill()
    (any_shop.folder / "go").touch()
    assert worker.stop() == 0


def test_a_killed_idle_child_is_replaced(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    victim = worker.children()[0]
    victim.kill()
    wait_until(lambda: len(worker.children()) == 2 and victim not in worker.children(), "a new child")
    assert [any_shop.task("add").delay(i).get(timeout=10) for i in range(10)] == list(range(10))


def test_a_killed_spawner_is_replaced_and_its_childrens_tasks_run_again(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    result = any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    worker.spawner().kill()
    wait_until(lambda: any_shop.ran() == ["start go"] * 2, "the task runs again")
    (any_shop.folder / "go").touch()
    assert result.get(timeout=10) == "go"
    assert worker.stop() == 0


def test_a_task_that_kills_the_spawner_is_dead_lettered_like_any_other_poison(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.task("kills_spawner").delay("x")
    wait_until(lambda: len(any_shop.dead()) == 1, "it is dead-lettered", 30)
    assert 3 <= len(any_shop.ran()) <= 4  # the first time is taken for an accident
    assert any_shop.task("add").delay(1).get(timeout=20) == 1
    assert worker.stop() == 0


def test_replacing_children_leaks_no_descriptor(sqlite_shop: Shop) -> None:
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri", "-l", "CRITICAL")
    processes = [psutil.Process(worker.pid), worker.spawner()]
    before = [process.num_fds() for process in processes]
    for _ in range(20):
        victim = worker.children()[0]
        victim.kill()
        wait_until(lambda v=victim: len(worker.children()) == 2 and v not in worker.children(), "a new child")
    assert sqlite_shop.task("add").delay(1).get(timeout=10) == 1
    after = [process.num_fds() for process in processes]
    assert [a - b for a, b in zip(after, before, strict=True)] == pytest.approx([0, 0], abs=4)


def test_a_killed_worker_leaves_no_process_and_another_one_has_its_messages_after_the_lease(any_shop: Shop) -> None:
    lease = {"TEST_LEASE": "3"}
    first = any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    running = any_shop.task("gate").delay("go")
    waiting = [any_shop.task("add").delay(i) for i in range(5)]
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    wait_until(lambda: any_shop.in_flight() > 1, "messages are prefetched")
    first.process.kill()
    watch = Stopwatch()
    wait_until(lambda: not first.survivors(), "spawner and children die with the master")
    any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    (any_shop.folder / "go").touch()
    assert running.get(timeout=20) == "go"
    assert [r.get(timeout=20) for r in waiting] == list(range(5))
    assert watch.s < 3 + 8
    wait_until(lambda: any_shop.in_flight() == 0, "the last ack has left")


def test_a_worker_that_was_stopped_past_its_lease_neither_acks_nor_starts_what_is_no_longer_its_own(
    any_shop: Shop,
) -> None:
    lease = {"TEST_LEASE": "2"}
    first = any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    any_shop.task("gate").delay("go")
    any_shop.task("noted").delay("once only")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    wait_until(lambda: any_shop.in_flight() == 2, "both are in flight")
    any_shop.freeze(psutil.Process(first.pid))
    try:
        any_shop.worker("-c", "2", "-Q", "hipri", env=lease)
        wait_until(lambda: any_shop.ran().count("start go") >= 2, "another worker runs the task")
        (any_shop.folder / "go").touch()
        wait_until(lambda: any_shop.ran().count("end go") >= 2, "both runs have ended")
    finally:
        first.process.send_signal(signal.SIGCONT)
    first.wait_log("lease lost")
    assert first.stop() == 0
    assert any_shop.ran().count("once only") == 1
    wait_until(lambda: any_shop.in_flight() == 0, "the last ack has left")


def test_a_child_dies_with_a_frozen_backlog_and_nothing_is_lost(any_shop: Shop) -> None:
    """Kills children at random moments under load: every task runs, and only what was running runs again."""
    worker = any_shop.worker("-c", "2", "-Q", "hipri", "-l", "ERROR")
    results = [any_shop.task("add").delay(i) for i in range(600)]
    for done in range(50, 300, 50):
        results[done].get(timeout=30)  # so none is met by three kills, and rightly dead-lettered
        children = worker.children()
        if children:
            children[0].kill()
    assert [r.get(timeout=30) for r in results] == list(range(600))
    wait_until(lambda: any_shop.in_flight() == 0, "nothing is left in flight")
    assert any_shop.dead() == []
