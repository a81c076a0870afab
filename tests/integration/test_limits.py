"""Time limits: raised in the task, or the end of its child."""

from __future__ import annotations

import psutil
import pytest

from qworker import SoftTimeLimitExceeded, TimeLimitExceeded

from support import Shop, wait_until


def test_a_soft_limit_is_raised_in_the_task(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("soft").delay("never")
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=10)
    worker.wait_log("soft time limit (0.3s) exceeded")
    assert any_shop.task("add").delay(1).get(timeout=10) == 1


def test_a_hard_limit_ends_the_child_and_only_it(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    long = any_shop.task("gate").delay("go")
    result = any_shop.task("hard").delay("never")
    with pytest.raises(TimeLimitExceeded) as caught:
        result.get(timeout=10)
    assert caught.value.args == (1.0,)
    worker.wait_log("hard time limit (1s) exceeded")
    worker.wait_log("in wait_for")
    (any_shop.folder / "go").touch()
    assert long.get(timeout=10) == "go"
    assert any_shop.dead() == []
    wait_until(lambda: any_shop.in_flight() == 0, "everything is settled")


def test_a_message_may_bring_its_own_limits(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("gate").apply_async(("never",), time_limit=0.2)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=10)


def test_the_command_lines_limit_is_for_tasks_that_have_none(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri", "--soft-time-limit", "0.2")
    result = any_shop.task("gate").delay("never")
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=10)


def test_a_time_out_that_is_not_acked_is_a_counted_crash(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.task("hard_again").delay("never")
    wait_until(lambda: len(any_shop.dead()) == 1, "dead-lettered after three tries", 20)
    dead = any_shop.dead()[0]
    assert (dead.reason, dead.details["crashes"]) == ("crashed", 3)
    assert dead.details["cause"] == "signal 9 (SIGKILL) at its hard time limit of 1 s"
    assert "in wait_for" in dead.details["stack"]
    assert "in _in_child" in dead.details["stack"]
    assert "spawner_main" not in dead.details["stack"], "what happened before the fork tells nothing"


def test_what_a_task_has_started_dies_with_its_child(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.task("spawns").delay()
    wait_until(lambda: len(any_shop.ran()) == 3, "three runs, three programs")
    pids = [int(pid) for pid in any_shop.ran()]
    wait_until(lambda: not any(_runs(pid) for pid in pids), "no program survives")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("where", ["handler", "argument", "finaliser"])
def test_a_soft_limit_that_comes_where_exceptions_get_lost_is_raised_behind_it(shop: Shop, where: str) -> None:
    shop.write((shop.folder / "shop.py").read_text() + _LOSES_EXCEPTIONS)
    shop.worker("-c", "1", "-Q", "hipri")
    with pytest.raises(SoftTimeLimitExceeded):
        shop.app.send_task("shop.loses", (where,), queue="hipri").get(timeout=20)
    assert shop.ran() == ["begun"]


# Each way takes longer than the limit, in code of which Python or logging only reports what it raises.
_LOSES_EXCEPTIONS = """
import logging

class Slow(logging.Handler):
    def emit(self, record):
        try:
            time.sleep(2)
        except Exception:
            self.handleError(record)

class SlowText:
    def __str__(self):
        time.sleep(2)
        return "at last"

class SlowEnd:
    def __del__(self):
        time.sleep(2)

@app.task(soft_time_limit=1.0, time_limit=20)
def loses(where):
    note("begun")
    log = logging.getLogger("loses")
    if where == "handler":
        log.addHandler(Slow())
        log.error("x")
    elif where == "argument":
        log.error("%s", SlowText())
    else:
        SlowEnd()
    wait_for("never")
"""
