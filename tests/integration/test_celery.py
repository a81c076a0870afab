"""Side by side with real Celery: its client's tasks run here, our tasks run on its worker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import celery
import pytest

from support import Shop, Worker, wait_until
from support.celery_client import celery_client
from support.celery_worker import celery_worker


@pytest.fixture
def client_app(redis_url: str) -> Iterator[celery.Celery]:
    with celery_client(redis_url, redis_url) as app:
        yield app


def test_a_celery_client_gets_its_results(shop: Shop, client_app: celery.Celery) -> None:
    shop.worker("-c", "4", "-Q", "hipri")
    plain = client_app.send_task("shop.add", (2, 3), queue="hipri")
    named = client_app.send_task("shop.add", (2,), {"y": 40}, queue="hipri")
    unicode = client_app.send_task("shop.echo", ("żółć 漢字",), {"ключ": "значение"}, queue="hipri")
    assert plain.get(timeout=10) == 5
    assert named.get(timeout=10) == 42
    assert unicode.get(timeout=10) == [["żółć 漢字"], {"ключ": "значение"}]


def test_kombu_json_types_keep_their_type_both_ways(shop: Shop, client_app: celery.Celery) -> None:
    shop.worker()
    values = [datetime(2026, 11, 21, 10, 0, tzinfo=timezone.utc), Decimal("1.10"), uuid.uuid4(), b"\xff\x00"]
    assert client_app.send_task("shop.echo", values, queue="hipri").get(timeout=10) == [values, {}]


def test_a_celery_client_sees_the_exception_of_a_failed_task(shop: Shop, client_app: celery.Celery) -> None:
    shop.worker()
    result = client_app.send_task("shop.boom", queue="hipri")
    with pytest.raises(ValueError, match="bad thing") as caught:
        result.get(timeout=10)
    assert caught.value.args == ("bad thing", 42)
    assert result.state == "FAILURE"
    assert "raise ValueError" in result.traceback


def test_priorities_of_a_celery_client_are_obeyed(shop: Shop, client_app: celery.Celery) -> None:
    for priority in (9, 6, 3, 0):
        client_app.send_task("shop.noted", (f"p{priority}",), queue="hipri", priority=priority)
    shop.worker("-c", "1", "-Q", "hipri")
    wait_until(lambda: len(shop.ran()) == 4, "four tasks have run")
    assert shop.ran() == ["p0", "p3", "p6", "p9"]


def test_a_countdown_of_a_celery_client_waits_on_the_broker(shop: Shop, client_app: celery.Celery) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri")
    before = datetime.now().timestamp()
    result = client_app.send_task("shop.add", (1, 1), queue="hipri", countdown=1.5)
    worker.wait_log("shop.add")
    assert result.get(timeout=10) == 2
    assert result.date_done.timestamp() - before >= 1.5


def test_a_celery_group_of_many_results_arrives(shop: Shop, client_app: celery.Celery) -> None:
    shop.worker()
    results = [client_app.send_task("shop.add", (i, 1), queue="hipri") for i in range(300)]
    assert [r.get(timeout=20) for r in results] == [i + 1 for i in range(300)]


def test_a_stock_celery_worker_runs_what_delay_published(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with celery_worker(tmp_path, redis_url, redis_url):
        plain = shop.task("add").delay(2, y=5)
        later = shop.task("add").apply_async((1, 2), priority=3, expires=60, headers={"x-mine": "v"})
        assert plain.get(timeout=30) == 7
        assert later.get(timeout=30) == 3


def test_a_celery_worker_restores_what_a_killed_qworker_held(shop: Shop, redis_url: str) -> None:
    """The way back: after a rollback to Celery nothing that qworker had in flight is lost."""
    worker: Worker = shop.worker("-c", "1", "-Q", "hipri")
    shop.task("gate").delay("never")
    for i in range(3):
        shop.task("noted").delay(f"n{i}")
    wait_until(lambda: shop.ran() == ["start never"], "the first task runs")
    worker.process.kill()
    worker.process.wait()
    app = celery.Celery("stock", broker=redis_url)
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        channel.qos.visibility_timeout = 0
        channel.qos.restore_visible(start=0, num=100, interval=1)
        names = []
        while (message := channel.basic_get("hipri", no_ack=True)) is not None:
            names.append((message.headers["task"], message.payload[0]))
    app.close()
    assert sorted(names) == [("shop.gate", ["never"])] + [("shop.noted", [f"n{i}"]) for i in range(3)]
