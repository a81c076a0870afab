"""Stops without a broker, frozen children, applications whose children cannot start, spawners that keep dying."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import psutil
import pytest

from qworker import TimeLimitExceeded

from support import RedisServer, Shop, wait_until
from support.stopwatch import Stopwatch


@pytest.mark.parametrize("is_frozen", [False, True], ids=["broker killed", "broker frozen"])
def test_a_cold_stop_without_a_broker_ends_in_time_and_says_what_is_left(
    shop_on: Callable[[str, str], Shop], is_frozen: bool
) -> None:
    with RedisServer() as server:
        shop = shop_on(server.url, server.url)
        worker = shop.worker("-c", "2", "-Q", "hipri")
        ids = [shop.task("careful").delay(name).id for name in ("a", "b")]
        wait_until(lambda: len(shop.ran()) == 2, "both tasks run")
        server.freeze() if is_frozen else server.stop()
        try:
            watch = Stopwatch()
            worker.signal(signal.SIGQUIT)
            assert worker.wait(15) == 69
            assert watch.s < 9
        finally:
            server.thaw() if is_frozen else None
    assert sorted(shop.ran()[2:]) == ["finally a", "finally b"]
    assert "the broker did not take the messages back in time" in worker.log
    if not is_frozen:
        assert all(f"[{task_id}] was cut" in worker.log for task_id in ids)
    left = next(line for line in worker.log.splitlines() if "2 messages are left to their lease" in line)
    assert all(task_id in left for task_id in ids)
    wait_until(lambda: not worker.survivors(), "no process is left")


def test_a_warm_stop_without_a_broker_lets_tasks_end_and_says_what_is_left(
    shop_on: Callable[[str, str], Shop],
) -> None:
    with RedisServer() as server:
        shop = shop_on(server.url, server.url)
        worker = shop.worker("-c", "1", "-Q", "hipri")
        task_id = shop.task("careful").delay("a").id
        wait_until(lambda: len(shop.ran()) == 1, "the task runs")
        server.stop()
        worker.signal(signal.SIGTERM)
        worker.wait_log("warm shutdown")
        (shop.folder / "a").touch()
        wait_until(lambda: len(shop.ran()) == 2, "the task ends")
        assert worker.wait(15) == 69
    assert task_id in next(line for line in worker.log.splitlines() if "left to" in line)


def test_a_frozen_child_is_killed_at_its_hard_limit(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("gate").apply_async(("never",), time_limit=4.0)
    wait_until(lambda: any_shop.ran() == ["start never"], "the task runs")
    (child,) = worker.children()
    child.suspend()
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=20)
    assert child not in worker.survivors()
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    assert any_shop.dead() == []
    assert worker.stop() == 0


def test_a_frozen_child_does_not_hold_up_a_cold_stop(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.task("gate").delay("never")
    wait_until(lambda: any_shop.ran() == ["start never"], "the task runs")
    worker.children()[0].suspend()
    worker.signal(signal.SIGQUIT)
    assert worker.wait(10) == 1
    assert (any_shop.depth(), any_shop.in_flight()) == (1, 0)


def test_the_time_that_a_message_waits_in_a_child_does_not_count_towards_its_limit(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri", "-l", "WARNING")
    short = [any_shop.task("add").delay(i) for i in range(300)]  # now children get several messages at once
    assert [r.get(timeout=20) for r in short] == list(range(300))
    any_shop.task("gate").delay("long")
    limited = [any_shop.task("gate").apply_async((f"short{i}",), time_limit=3.0) for i in range(4)]
    for i in range(4):
        (any_shop.folder / f"short{i}").touch()
    wait_until(lambda: any_shop.ran() == ["start long"], "the child is busy")
    time.sleep(3.2)  # longer than the limit
    (any_shop.folder / "long").touch()
    assert [r.get(timeout=10) for r in limited] == [f"short{i}" for i in range(4)]
    time.sleep(3.2)  # time in which a deadline of a run that has ended would show
    assert "time limit" not in worker.log
    assert worker.stop() == 0


def test_a_frozen_idle_child_does_not_hold_up_a_stop(sqlite_shop: Shop) -> None:
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri")
    worker.children()[0].suspend()
    assert worker.stop(10) == 0
    worker.wait_log("was asked to leave and has not left")


def test_a_frozen_spawner_does_not_keep_a_hard_stop_from_giving_messages_back(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.task("careful").delay("never")
    wait_until(lambda: any_shop.ran() == ["start never"], "the task runs")
    worker.spawner().suspend()
    worker.signal(signal.SIGQUIT)
    assert worker.wait(10) == 1
    assert (any_shop.depth(), any_shop.in_flight()) == (1, 0)


@pytest.mark.parametrize("delay_s", [0.0, 0.4])
def test_children_that_die_at_boot_end_the_worker_with_three_in_seconds(sqlite_shop: Shop, delay_s: float) -> None:
    source = (sqlite_shop.folder / "shop.py").read_text()
    sqlite_shop.write(source + f"os.register_at_fork(after_in_child=lambda: (time.sleep({delay_s}), os._exit(9)))\n")
    watch = Stopwatch()
    worker = sqlite_shop.worker("-c", "4", "-Q", "hipri", ready=False)
    assert worker.wait(10) == 3
    assert watch.s < 5
    assert "children cannot start" in worker.log
    assert "exit code 9" in worker.log


def test_children_that_segfault_at_boot_end_the_worker_with_three_and_their_stack(sqlite_shop: Shop) -> None:
    source = (sqlite_shop.folder / "shop.py").read_text()
    sqlite_shop.write(source + "import faulthandler\nos.register_at_fork(after_in_child=faulthandler._sigsegv)\n")
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri", ready=False)
    assert worker.wait(10) == 3
    assert "SIGSEGV" in worker.log


@pytest.mark.parametrize("option", ["--max-memory-hard", "--max-memory-per-child"])
def test_children_that_are_over_their_limit_from_the_start_are_one_error_and_no_loop_under_load(
    shop: Shop, option: str
) -> None:
    worker = shop.worker("-c", "2", "-Q", "hipri", "-l", "WARNING", option, "100", "--max-tasks-per-child", "20")
    assert [r.get(timeout=20) for r in [shop.task("add").delay(i) for i in range(200)]] == list(range(200))
    worker.wait_log("a fresh child has")
    end = time.monotonic() + 2.5
    while time.monotonic() < end:  # two samples: time in which a loop would show
        shop.task("pid").delay().get(timeout=10)
    assert worker.log.count("a fresh child has") == 1
    assert "is killed" not in worker.log
    assert shop.dead() == []
    assert worker.stop() == 0


def test_a_fresh_child_that_takes_much_at_once_is_not_taken_for_one_that_was_born_fat(shop: Shop) -> None:
    limits = ("--max-memory-hard", "150000", "--max-tasks-per-child", "1")
    worker = shop.worker("-c", "1", "-Q", "hipri", "-l", "WARNING", *limits)
    (shop.folder / "now").touch()
    for _ in range(8):
        shop.task("eats").delay(200, "now")
    shop.task("add").delay(1).get(timeout=20)
    assert "a fresh child has" not in worker.log


def test_a_spawner_that_keeps_dying_costs_its_master_next_to_nothing(sqlite_shop: Shop) -> None:
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri")
    for times in range(1, 6):
        wait_until(worker.spawners, "there is a spawner")[0].kill()
        worker.wait_log("the spawner (pid", times=times)
    master = psutil.Process(worker.pid)
    before = sum(master.cpu_times()[:2])
    time.sleep(1.5)
    assert sum(master.cpu_times()[:2]) - before < 0.15
    assert sqlite_shop.task("add").delay(1).get(timeout=20) == 1
    assert worker.stop() == 0


def test_a_system_that_lets_nobody_fork_for_a_while_costs_no_running_task_and_no_message(sqlite_shop: Shop) -> None:
    _let_fork_fail_while(sqlite_shop, "full")
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri", "--max-tasks-per-child", "3")
    long = sqlite_shop.task("gate").delay("go")
    wait_until(lambda: sqlite_shop.ran() == ["start go"], "the long task runs")
    old = {child.pid for child in worker.children()}
    (sqlite_shop.folder / "full").touch()
    pids = [sqlite_shop.task("pid").delay() for _ in range(20)]
    assert {result.get(timeout=30) for result in pids} <= old
    worker.wait_log("no child can be started")
    assert worker.log.count("no child can be started (Resource temporarily unavailable)") == 1
    spawner = worker.spawner()
    (sqlite_shop.folder / "full").unlink()
    sqlite_shop.task("pid").delay()
    wait_until(lambda: sqlite_shop.task("pid").delay().get(timeout=10) not in old, "spent children are replaced")
    worker.wait_log("children can be started again")
    assert spawner.is_running()
    (sqlite_shop.folder / "go").touch()
    assert long.get(timeout=10) == "go"
    assert sqlite_shop.ran() == ["start go", "end go"]
    assert worker.stop() == 0


def test_children_that_the_system_starts_only_later_are_waited_for(sqlite_shop: Shop) -> None:
    _let_fork_fail_while(sqlite_shop, "full")
    (sqlite_shop.folder / "full").touch()
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri", ready=False)
    worker.wait_log("no child can be started")
    (sqlite_shop.folder / "full").unlink()
    worker.wait_ready()
    assert worker.stop() == 0


def test_more_children_than_there_are_descriptors_for_are_refused(sqlite_shop: Shop) -> None:
    limit = ("prlimit", "--nofile=64:64", "--")
    worker = sqlite_shop.worker("-c", "40", "-Q", "hipri", ready=False, prefix=limit)
    assert worker.wait() == 4
    assert "concurrency 40 needs 216 descriptors, and this process may have 64" in worker.log


def test_a_pool_that_grows_leaves_descriptors_to_the_rest_of_the_worker(sqlite_shop: Shop) -> None:
    worker = sqlite_shop.worker("-c", "1", "-Q", "hipri", prefix=("prlimit", "--nofile=80:80", "--"))
    for size in range(2, 12):
        worker.signal(signal.SIGTTIN)
        worker.wait_log(f"grows to {size} children")
    worker.wait_log("no child can be started (Too many open files)")
    assert sqlite_shop.task("add").delay(1).get(timeout=20) == 1
    for size in range(10, 0, -1):
        worker.signal(signal.SIGTTOU)
        worker.wait_log(f"shrinks to {size} children")
    assert sqlite_shop.task("add").delay(2).get(timeout=20) == 2
    assert worker.stop() == 0
    assert "Traceback" not in worker.log


def test_a_fork_that_hangs_does_not_keep_a_stop_from_ending(sqlite_shop: Shop) -> None:
    source = (sqlite_shop.folder / "shop.py").read_text()
    hang = "os.register_at_fork(before=lambda: wait_for('go') if (_FOLDER / 'hang').exists() else None)\n"
    sqlite_shop.write(source + hang)
    worker = sqlite_shop.worker("-c", "1", "-Q", "hipri", "--max-tasks-per-child", "1")
    (sqlite_shop.folder / "hang").touch()
    results = [sqlite_shop.task("add").delay(i) for i in range(3)]
    assert results[0].get(timeout=10) == 0
    assert worker.stop(30) == 0
    assert (sqlite_shop.depth(), sqlite_shop.in_flight()) == (2, 0)


def _let_fork_fail_while(shop: Shop, name: str) -> None:
    """What the system does when a limit of processes is reached, as long as there is a file of this name."""
    shop.write((shop.folder / "shop.py").read_text() + _REFUSING_FORK.format(name=name))


_REFUSING_FORK = """
_fork = os.fork

def _fork_or_refuse():
    if (_FOLDER / "{name}").exists():
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return _fork()

os.fork = _fork_or_refuse
"""
