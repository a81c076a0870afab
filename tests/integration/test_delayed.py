"""Delayed tasks with real workers: on time, once, revocable, and without a place in the worker's memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import celery
import psutil
import pytest
import redis

from qworker import App, TaskRevokedError
from qworker.transports import Envelope

from support import Shop, Worker, wait_until
from support.celery_client import celery_client
from support.messages import envelope
from support.stopwatch import Stopwatch


@pytest.fixture
def client_app(redis_url: str) -> Iterator[celery.Celery]:
    with celery_client(redis_url, redis_url) as app:
        yield app


def test_a_revoked_delayed_task_is_gone_and_its_result_says_so(any_shop: Shop) -> None:
    results = [any_shop.task("noted").apply_async((n,), countdown=2) for n in range(3)]  # nobody moves them yet
    assert any_shop.app.control.revoke(results[0].id) == 1
    assert any_shop.app.control.revoke([results[1].id, results[2].id, "unknown"]) == 2
    assert any_shop.app.control.revoke(results[0].id) == 0
    assert [result.status for result in results] == ["REVOKED"] * 3
    with pytest.raises(TaskRevokedError, match="revoked"):
        results[0].get(timeout=5)
    assert any_shop.app.AsyncResult("unknown").status == "PENDING"
    any_shop.task("noted").apply_async(("later",), countdown=2.5)
    any_shop.worker()
    wait_until(lambda: any_shop.ran() != [], "a later one runs", 10)
    assert any_shop.ran() == ["later"]


def test_a_celery_client_reads_that_a_task_was_revoked(shop: Shop, client_app: celery.Celery) -> None:
    result = shop.task("noted").apply_async(("x",), countdown=600)
    assert shop.app.control.revoke(result.id) == 1
    seen = client_app.AsyncResult(result.id)
    assert seen.status == "REVOKED"
    with pytest.raises(celery.exceptions.TaskRevokedError, match="revoked"):
        seen.get(timeout=5)


def test_a_retry_that_waits_can_be_revoked(any_shop: Shop) -> None:
    any_shop.worker()
    result = any_shop.task("slow_retry").delay()
    wait_until(lambda: result.status == "RETRY", "it waits for its second attempt", 10)
    wait_until(lambda: any_shop.app.control.revoke(result.id) == 1, "the retry is revoked", 5)
    assert result.status == "REVOKED"


def test_what_waits_or_runs_is_not_reached(any_shop: Shop) -> None:
    result = any_shop.task("add").delay(1, 1)
    assert any_shop.app.control.revoke(result.id) == 0
    with pytest.raises(NotImplementedError, match="terminate"):
        any_shop.app.control.revoke(result.id, terminate=True)
    with pytest.raises(TypeError, match="terminat"):
        any_shop.app.control.revoke(result.id, terminat=True)
    any_shop.worker()
    assert result.get(timeout=10) == 2


def test_revoking_needs_no_result_backend(any_shop: Shop) -> None:
    app = App("bare", broker=any_shop.broker)
    app.send_task("shop.add", (1,), task_id="x", countdown=600)
    assert app.control.revoke("x") == 1
    app.close()


def test_a_celery_producer_s_eta_message_is_parked_the_moment_it_is_seen(
    shop: Shop, client_app: celery.Celery, client: redis.Redis
) -> None:
    shop.worker("-c", "1", "-Q", "hipri")
    far = [client_app.send_task("shop.noted", (str(n),), queue="hipri", countdown=36000) for n in range(30)]
    wait_until(lambda: client.zcard("qworker:delayed") == 30, "all are in the delayed set", 5)
    wait_until(lambda: client.hlen("unacked") == 0, "the worker holds none of them", 5)
    assert client_app.send_task("shop.add", (1, 1), queue="hipri").get(timeout=10) == 2
    assert shop.app.control.revoke([result.id for result in far]) == 30
    assert client.exists("qworker:delayed", "qworker:delayed:data") == 0
    assert far[0].status == "REVOKED"


def test_delayed_tasks_start_on_time_and_once_whoever_moves_them(any_shop: Shop) -> None:
    for _ in range(3):
        any_shop.worker("-c", "2", "-Q", "hipri")
    late: list[float] = []
    for turn in range(3):  # a machine may stand still for a moment; not three times
        began, watch = time.monotonic(), Stopwatch()
        start = time.time() + 1
        dues = [start + n / 20 for n in range(40)]
        for n, due in enumerate(dues):
            any_shop.task("timed").apply_async((f"{turn}-{n}", due), countdown=due - time.time())
        wait_until(lambda turn=turn: len(any_shop.ran()) >= 40 * (turn + 1), "all have run", 20)  # type: ignore[misc]
        rows = [line.split() for line in any_shop.ran()[40 * turn :]]
        assert sorted(name for name, _ in rows) == sorted(f"{turn}-{n}" for n in range(40)), "each ran once"
        late = [float(seconds) for _, seconds in rows]
        assert min(late) > -0.01, "none ran too early"
        busy_s = time.monotonic() - began - watch.s  # in which the machine had too much to do
        if max(late) < 0.5 + busy_s:
            return
    raise AssertionError(f"tasks started up to {max(late):.2f} s late, three times")


def weight_of(worker: Worker) -> int:
    """Bytes that the worker's processes have for themselves."""
    return sum(process.memory_full_info().uss for process in worker.tree() if process.status() != psutil.STATUS_ZOMBIE)


def test_a_hundred_thousand_delayed_tasks_cost_the_worker_no_memory(shop: Shop, client: redis.Redis) -> None:
    worker = shop.worker("-c", "2", "-Q", "hipri")
    assert shop.task("add").delay(1, 1).get(timeout=10) == 2
    before = weight_of(worker)
    due = time.time() + 36000
    raw = envelope(1).raw
    for batch in range(100):
        envelopes = [replace(Envelope("hipri", raw, due=due + n / 1000), task_id=f"{batch}-{n}") for n in range(1000)]
        shop.app._producer.publish(envelopes)
    assert client.zcard("qworker:delayed") == 100_000
    assert shop.task("add").delay(2, 2).get(timeout=10) == 4
    time_to_look = time.monotonic() + 6  # the worker looks after delayed tasks every 5 s
    wait_until(lambda: time.monotonic() > time_to_look, "the worker has looked after them", 10)
    assert weight_of(worker) - before < 3_000_000
    assert shop.app.control.revoke([f"99-{n}" for n in range(1000)]) == 1000
    assert client.zcard("qworker:delayed") == 99_000
