"""On SQS side by side with real Celery: its client's messages run here, ours run on its worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import celery
import pytest

from support import Shop
from support.celery_client import celery_client
from support.celery_worker import celery_worker
from support.moto_server import MotoServer
from support.samples import load
from support.waiting import wait_until


@pytest.fixture
def mixed_shop(shop_on: Callable[[str, str], Shop], sqs: MotoServer, redis_url: str) -> Shop:
    """SQS for the messages, Redis for the results: what both sides understand."""
    sqs.queue("hipri")
    return shop_on(sqs.url, redis_url)


@pytest.fixture
def client_app(sqs: MotoServer, redis_url: str) -> Iterator[celery.Celery]:
    with celery_client(sqs.url, redis_url, broker_transport_options={"region": "us-east-1"}) as app:
        yield app


def test_a_stock_client_s_calls_run_here(mixed_shop: Shop, client_app: celery.Celery, sqs: MotoServer) -> None:
    mixed_shop.worker()
    add = client_app.signature("shop.add", queue="hipri")
    plain = client_app.send_task("shop.add", (2, 3), queue="hipri")
    unicode = client_app.send_task("shop.echo", ("żółć 漢字",), {"ключ": "значение"}, queue="hipri")
    linked = celery.chain(add.clone((1, 1)), add.clone((5,)))()
    failed = client_app.send_task("shop.boom", queue="hipri")
    assert plain.get(timeout=20) == 5
    assert unicode.get(timeout=20) == [["żółć 漢字"], {"ключ": "значение"}]
    assert linked.get(timeout=20) == 7
    with pytest.raises(ValueError, match="bad thing"):
        failed.get(timeout=20)
    wait_until(lambda: sqs.counts("hipri") == (0, 0, 0), "everything is deleted")


def test_a_stock_client_s_raw_bodies_run_here(mixed_shop: Shop, client_app: celery.Celery) -> None:
    client_app.conf.broker_transport_options = {"region": "us-east-1", "sqs_base64_encoding": False}
    mixed_shop.worker()
    assert client_app.send_task("shop.add", (2, 3), queue="hipri").get(timeout=20) == 5


def test_a_stock_client_s_countdown_waits_on_the_queue(mixed_shop: Shop, client_app: celery.Celery) -> None:
    worker = mixed_shop.worker("-c", "1", "-Q", "hipri", "-l", "DEBUG")
    started = time.monotonic()
    late, later = (client_app.send_task("shop.add", (1, 1), queue="hipri", countdown=wait_s) for wait_s in (3, 60))
    worker.wait_log(f"{later.id}] waits on the broker for")
    assert late.get(timeout=20) == 2
    assert time.monotonic() - started >= 3


def test_captured_messages_of_a_stock_client_are_read(mixed_shop: Shop, sqs: MotoServer) -> None:
    calls = load("40")
    bodies = [
        exchange["request"]["MessageBody"]
        for call in calls
        for exchange in call["http"]
        if exchange["headers"].get("X-Amz-Target") == "AmazonSQS.SendMessage" and "fifo" not in str(exchange["request"])
    ]
    assert len(bodies) >= 4
    sqs.queue("dead")
    worker = mixed_shop.worker(env={"TEST_BROKER_OPTIONS": json.dumps({"dead_letter_queue": "dead"})})
    for body in bodies:
        sqs.send("hipri", body)
    wait_until(lambda: sqs.counts("hipri")[0] == 0 and sqs.counts("dead")[0] >= 3, "all have been read")
    assert "'sqsapp.add'" in worker.log, "decoded, and known by name"
    assert "undecodable" not in worker.log


def test_a_stock_worker_runs_what_we_publish(mixed_shop: Shop, sqs: MotoServer, redis_url: str, tmp_path: Path) -> None:
    settings = {
        "broker_transport_options": {"region": "us-east-1", "wait_time_seconds": 1, "polling_interval": 0.1},
        "worker_enable_remote_control": False,
    }
    with celery_worker(tmp_path, sqs.url, redis_url, **settings):
        plain = mixed_shop.task("add").delay(2, y=5)
        later = mixed_shop.task("add").apply_async((1, 2), countdown=1, headers={"x-mine": "v"})
        assert plain.get(timeout=40) == 7
        assert later.get(timeout=40) == 3
