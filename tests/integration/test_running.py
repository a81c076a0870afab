"""What users see of a running worker, on both brokers."""

from __future__ import annotations

import time

import pytest

from qworker import MaxRetriesExceededError

from support import Shop, wait_until


def test_results_come_back(any_shop: Shop) -> None:
    any_shop.worker()
    results = [any_shop.task("add").delay(i, y=1) for i in range(50)]
    assert [r.get(timeout=20) for r in results] == [i + 1 for i in range(50)]
    assert results[0].successful()


def test_a_failure_carries_its_exception_and_the_users_own_frames(any_shop: Shop) -> None:
    worker = any_shop.worker()
    result = any_shop.task("boom").delay()
    with pytest.raises(ValueError, match="bad thing"):
        result.get(timeout=10)
    assert result.failed()
    assert "shop.py" in result.traceback
    assert "qworker" not in result.traceback
    worker.wait_log(f"Task shop.boom[{result.id}] raised unexpected: ValueError('bad thing', 42)")


def test_retries_run_until_they_succeed_and_count_up(any_shop: Shop) -> None:
    worker = any_shop.worker()
    result = any_shop.task("flaky").delay(3)
    assert result.get(timeout=20) == 3
    assert any_shop.ran() == ["flaky 0", "flaky 1", "flaky 2", "flaky 3"]
    worker.wait_log(f"Task shop.flaky[{result.id}] retry:", times=3)


def test_autoretry_ends_after_max_retries_with_the_tasks_own_exception(any_shop: Shop) -> None:
    any_shop.worker()
    result = any_shop.task("auto").delay("try")
    with pytest.raises((OSError, MaxRetriesExceededError), match="never"):
        result.get(timeout=20)
    assert any_shop.ran() == ["try"] * 3


def test_a_countdown_is_kept_and_nothing_waits_in_the_worker(any_shop: Shop) -> None:
    any_shop.worker()
    published = time.time()
    later = any_shop.task("add").apply_async((1, 1), countdown=1.0)
    assert any_shop.task("add").delay(2, 2).get(timeout=10) == 4
    assert later.get(timeout=10) == 2
    assert time.time() - published >= 1.0


def test_an_expired_task_is_not_run(any_shop: Shop) -> None:
    result = any_shop.task("noted").apply_async(("late",), expires=0.05)
    time.sleep(0.1)
    any_shop.worker()
    wait_until(lambda: result.status == "REVOKED", "the expired task is revoked")
    assert any_shop.ran() == []


def test_a_ten_megabyte_message_and_result_travel(any_shop: Shop) -> None:
    any_shop.worker()
    assert any_shop.task("size").delay("x" * 10_000_000).get(timeout=30) == 10_000_000
    assert len(any_shop.task("big").delay(10_000_000).get(timeout=30)) == 10_000_000


def test_a_state_set_by_the_task_is_seen_while_it_runs(any_shop: Shop) -> None:
    any_shop.worker()
    result = any_shop.task("progress").delay("go")
    wait_until(lambda: result.status == "PROGRESS", "the state arrives")
    assert result.info == {"done": 3}
    (any_shop.folder / "go").touch()
    assert result.get(timeout=10) == "done"


def test_a_short_task_does_not_wait_behind_a_long_one_while_a_child_is_idle(any_shop: Shop) -> None:
    any_shop.worker("-c", "2", "-Q", "hipri", "-l", "WARNING")
    warm_up = [any_shop.task("add").delay(i) for i in range(200)]
    [r.get(timeout=20) for r in warm_up]  # now the worker believes in short tasks and sends several at a time
    any_shop.task("gate").delay("long")
    short = [any_shop.task("add").delay(i) for i in range(50)]
    assert [r.get(timeout=10) for r in short] == list(range(50))
    wait_until(lambda: any_shop.ran() == ["start long"], "the long one runs, and has not ended")
    (any_shop.folder / "long").touch()


def test_a_result_that_cannot_be_encoded_is_a_failure(any_shop: Shop) -> None:
    any_shop.worker()
    result = any_shop.task("unserialisable").delay()
    with pytest.raises(Exception, match=r"object"):
        result.get(timeout=10)
    assert result.failed()


def test_a_call_that_does_not_fit_the_signature_is_a_failure(any_shop: Shop) -> None:
    any_shop.worker()
    result = any_shop.app.send_task("shop.add", kwargs={"nope": 1}, queue="hipri")
    with pytest.raises(TypeError, match="nope"):
        result.get(timeout=10)


def test_a_rejected_task_is_dead_lettered(any_shop: Shop) -> None:
    any_shop.worker()
    result = any_shop.task("rejects").delay()
    wait_until(lambda: result.status == "FAILURE", "the rejection is stored")
    wait_until(lambda: len(any_shop.dead()) == 1, "the message is in the dead-letter store")
    assert any_shop.dead()[0].reason == "rejected"


def test_a_task_that_forks_runs_once(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert any_shop.task("forks").delay().get(timeout=10) == "one"
    assert [any_shop.task("add").delay(i).get(timeout=10) for i in range(20)] == list(range(20))


def test_an_at_most_once_task_is_acked_when_it_starts(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri")
    result = any_shop.task("once").delay("go")
    wait_until(lambda: any_shop.ran() == ["once go"], "the task has started")
    assert any_shop.in_flight() == 0
    (any_shop.folder / "go").touch()
    assert result.get(timeout=10) == "go"
