"""Workers on SQS whose large messages lie in S3, beside stock Celery producers and a result store in DynamoDB."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import celery
import pytest

from support import Shop
from support.moto_server import LOGIN, MotoServer, create_table
from support.waiting import wait_until

OPTIONS = {"s3_bucket": "payloads", "s3_prefix": "shop/", "wait_time_seconds": 1, "dead_letter_queue": "dead"}


@pytest.fixture
def s3(sqs: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of S3, where there is a bucket for the shop's payloads."""
    monkeypatch.setenv("TEST_BROKER_OPTIONS", json.dumps(OPTIONS))
    client = sqs.client_of("s3")
    client.create_bucket(Bucket="payloads")
    sqs.queue("hipri")
    sqs.queue("dead")
    yield client
    client.close()


@pytest.fixture
def aws_shop(s3: Any, shop_on: Callable[[str, str], Shop], sqs: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Queue, payloads and results on AWS."""
    monkeypatch.setattr("qworker.results.dynamodb_url._LONGEST_S", 60.0)  # the client's: moto takes its time
    with closing(sqs.client_of("dynamodb")) as client:
        create_table(client, "results")
    return shop_on(sqs.url, f"dynamodb://{LOGIN}@127.0.0.1:{sqs.port}/results")


def keys(s3: Any) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket="payloads").get("Contents", ())]


def test_large_and_small_messages_run_and_leave_nothing_behind(aws_shop: Shop, s3: Any, sqs: MotoServer) -> None:
    worker = aws_shop.worker()
    echo = aws_shop.task("echo")
    big = [echo.delay("x" * 3_000_000, n) for n in range(3)]
    small = [aws_shop.task("add").delay(n, 1) for n in range(10)]
    assert len(keys(s3)) <= 3

    assert [result.get(timeout=30) for result in small] == list(range(1, 11))
    assert [result.get(timeout=30)[0][1] for result in big] == [0, 1, 2]
    wait_until(lambda: sqs.counts("hipri") == (0, 0, 0) and keys(s3) == [], "nothing is left")
    assert worker.stop() == 0


def test_a_killed_worker_s_large_message_runs_elsewhere(
    aws_shop: Shop, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_LEASE", "5")
    first = aws_shop.worker()
    result = aws_shop.task("gate").apply_async(("open",), headers={"note": "x" * 500_000})
    wait_until(lambda: aws_shop.ran() == ["start open"], "it runs")
    assert len(keys(s3)) == 1
    first.signal(signal.SIGKILL)
    first.wait()
    (aws_shop.folder / "open").touch()
    aws_shop.worker()

    assert result.get(timeout=30) == "open"
    wait_until(lambda: keys(s3) == [], "nothing is left")


def test_a_message_whose_payload_is_gone_is_a_dead_letter_and_a_failure(
    aws_shop: Shop, s3: Any, sqs: MotoServer
) -> None:
    result = aws_shop.task("echo").delay("x" * 300_000)
    s3.delete_object(Bucket="payloads", Key=keys(s3)[0])
    worker = aws_shop.worker()

    with pytest.raises(Exception, match="there is no s3://payloads/shop/"):
        result.get(timeout=30)
    wait_until(lambda: sqs.counts("dead")[0] == 1, "it is a dead letter")
    (letter,) = sqs.receive("dead")
    assert letter["MessageAttributes"]["qworker.reason"]["StringValue"] == "payload_missing"
    assert aws_shop.task("add").delay(1, 1).get(timeout=30) == 2
    assert worker.stop() == 0


def test_celery_s_own_messages_run_beside_and_its_client_reads_the_results(
    aws_shop: Shop, s3: Any, sqs: MotoServer
) -> None:
    aws_shop.worker()
    assert aws_shop.task("add").delay(1, 1).get(timeout=30) == 2
    app = celery.Celery("client", broker=sqs.url, backend=aws_shop.backend.partition("?")[0])
    app.conf.update(broker_transport_options={"region": "us-east-1", "is_secure": False}, task_default_queue="hipri")
    result = app.send_task("shop.add", [2, 3], queue="hipri")

    assert result.get(timeout=30, interval=0.1) == 5
    app.backend._client.close()
    app.close()
