"""What a worker costs on SQS: requests are counted where they arrive."""

from __future__ import annotations

import time

from qworker.tasks.publishing import prepare
from qworker.transports import open_transport

from support import Shop
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy
from support.waiting import wait_until

_WORK = ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch")

#: On a busy machine moto takes seconds for a receive; what is asked twice because of that says nothing about costs.
#: Nor do renewals, hence a long lease where tasks are counted: they cost by time, not by task.
PATIENT = {"TEST_BROKER_OPTIONS": '{"socket_timeout": 60}'}


def test_under_load_a_task_costs_a_quarter_of_a_request_at_most(
    sqs_shop: Shop, sqs: MotoServer, proxy: SqsProxy
) -> None:
    count = 800  # the last polls, which find nothing, are eight at the most
    producer = open_transport(sqs.url, options={"socket_timeout": 30})
    producer.publish([prepare(sqs_shop.app, "shop.add", [n, 1], queue="hipri").envelope for n in range(count)])
    producer.close()
    # With a child or two a machine that is slow at random has room for less than ten messages at a time.
    sqs_shop.worker("-c", "8", "-Q", "hipri", "-b", proxy.url, "-l", "WARNING", env=PATIENT | {"TEST_LEASE": "600"})
    wait_until(lambda: sqs.counts("hipri") == (0, 0, 0), "all have run", 90.0)
    counts = proxy.counts()
    assert sum(counts[action] for action in _WORK) <= 0.25 * count, counts


def test_an_idle_worker_costs_one_request_per_wait_and_queue(sqs_shop: Shop, sqs: MotoServer, proxy: SqsProxy) -> None:
    sqs.queue("lopri")
    env = {"TEST_BROKER_OPTIONS": '{"wait_time_seconds": 3}'}
    sqs_shop.worker("-c", "2", "-Q", "hipri,lopri", "-b", proxy.url, env=env)
    wait_until(lambda: len(proxy.of("ReceiveMessage")) >= 2, "the first polls have ended")
    began, before = time.monotonic(), sum(proxy.counts().values())
    time.sleep(12)
    asked = sum(proxy.counts().values()) - before
    waits = (time.monotonic() - began) // 3 + 1
    assert asked <= 2 * waits, proxy.counts()
