"""Failed runs and bad messages on SQS: backoff by the policy, and dead letters."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from qworker.core.errors import ConfigError
from qworker.transports import Delivery, Envelope, Rejection

from support.messages import envelopes, numbers_of
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, hidden_for
from support.sqs_workers import OpenSqs, PatientTransport
from support.waiting import wait_until


def predefined(sqs: MotoServer, proxy: SqsProxy, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{proxy.port}/123456789012/hipri"
    return {"predefined_queues": {"hipri": {"url": url, **more}}}


# ---- failed runs ----


def fail(worker: PatientTransport, delivery: Delivery) -> None:
    assert worker.reject([Rejection(delivery, "failed")]).done == 1


def test_a_listed_task_s_failures_follow_the_policy(open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy) -> None:
    options = predefined(sqs, proxy, backoff_policy={1: 1, 2: 2, 3: 40}, backoff_tasks=["shop.note"])
    worker = open_sqs(**options)
    worker.publish(envelopes(1))
    waits = []
    for _ in range(3):
        (delivery,) = wait_until(lambda: worker.reserve(["hipri"], 1), "it is there again")
        fail(worker, delivery)
        waits.append(hidden_for(proxy)[-1])
    assert waits == [1, 2, 40]


def test_a_clean_release_does_not_advance_the_policy(open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy) -> None:
    options = predefined(sqs, proxy, backoff_policy={1: 1, 2: 20, 3: 40, 4: 80}, backoff_tasks=["shop.note"])
    worker = open_sqs(**options)
    worker.publish(envelopes(1))
    worker.requeue(worker.reserve(["hipri"], 1))
    fail(worker, worker.reserve(["hipri"], 1)[0])
    assert hidden_for(proxy)[-1] == 1
    for _ in range(3):
        worker.requeue(wait_until(lambda: worker.reserve(["hipri"], 1), "it is there again"))
    fail(worker, worker.reserve(["hipri"], 1)[0])
    assert hidden_for(proxy)[-1] == 20


# ---- dead letters ----


def test_a_bad_message_goes_to_the_named_queue_before_it_is_deleted(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    sqs.queue("pfx-dead")
    sqs.queue("pfx-hipri")
    worker = open_sqs(queue_name_prefix="pfx-", dead_letter_queue="dead")
    raw = b"this is no envelope"
    worker.publish([Envelope("hipri", raw)])
    taken = worker.reserve(["hipri"], 1)
    worker.reject([Rejection(taken[0], "undecodable_envelope", {"error": "x" * 9000, "task": None})])
    assert sqs.counts("pfx-hipri") == (0, 0, 0)
    (letter,) = worker.dead_letters()
    assert (letter.raw, letter.queue, letter.reason) == (raw, "hipri", "undecodable_envelope")
    assert letter.details["error"].startswith("xxx")
    assert worker.requeue_dead([letter.token, "stranger"]) == 1
    assert (sqs.counts("pfx-hipri"), sqs.counts("pfx-dead")) == ((1, 0, 0), (0, 0, 0))


def test_dead_letters_can_be_listed_and_deleted(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    sqs.queue("dead")
    worker = open_sqs(dead_letter_queue="dead")
    worker.publish(envelopes(12))
    worker.reject([Rejection(delivery, "unknown_task") for delivery in worker.reserve(["hipri"], 12)])
    letters = worker.dead_letters()
    assert sorted(numbers_of(letters)) == list(range(12))
    assert sqs.counts("dead") == (12, 0, 0), "a look leaves them where they are"
    assert worker.purge_dead([letter.token for letter in letters[:5]]) == 5
    assert sqs.counts("dead") == (7, 0, 0)


def test_without_a_dead_letter_queue_there_is_nothing_to_list(open_sqs: OpenSqs) -> None:
    with pytest.raises(ConfigError, match="dead_letter_queue"):
        open_sqs().dead_letters()


def test_a_rejected_message_is_not_run_again_while_its_redrive_policy_counts(
    open_sqs: OpenSqs, sqs: MotoServer
) -> None:
    sqs.queue("dead")
    policy = json.dumps({"deadLetterTargetArn": sqs.arn("dead"), "maxReceiveCount": 3})
    url = f"{sqs.endpoint}/123456789012/hipri"
    sqs.client.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    worker = open_sqs()
    worker._directory.traits(worker._directory.find("hipri"))
    worker.publish(envelopes(1))
    worker.reject([Rejection(worker.reserve(["hipri"], 1)[0], "unknown_task")])

    def is_moved() -> bool:
        assert worker.reserve(["hipri"], 1) == []
        return sqs.counts("dead")[0] == 1

    wait_until(is_moved, "SQS has moved it")


def test_one_that_nobody_wants_is_hidden_and_stays(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy, caplog: pytest.LogCaptureFixture
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    with caplog.at_level(logging.ERROR):
        worker.reject([Rejection(worker.reserve(["hipri"], 1)[0], "unknown_task")])
    assert "hidden for 11 h" in caplog.text
    assert hidden_for(proxy)[-1] == 11 * 3600
    assert sqs.counts("hipri") == (0, 1, 0)
    assert proxy.counts()["DeleteMessageBatch"] == 0
