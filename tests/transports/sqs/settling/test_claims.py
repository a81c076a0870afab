"""Claims on SQS: renewed up to twelve hours, given back with their counters, or parked until they are due."""

from __future__ import annotations

import base64
import json
import math
import time

import pytest

from qworker.transports import Ack

from support.messages import envelope, envelopes
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, hidden_for, throttled
from support.sqs_workers import OpenSqs

# ---- claims ----


def test_only_claims_that_grow_old_are_renewed_ten_to_a_request(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(20))
    taken = worker.reserve(["hipri"], 20)
    del proxy.requests[:]
    assert worker.extend(taken).lost == []
    assert proxy.counts()["ChangeMessageVisibilityBatch"] == 0
    for claim in worker._claims.all():
        claim.until -= 10
    assert worker.extend(taken).done == 20
    assert proxy.counts()["ChangeMessageVisibilityBatch"] == 2


def test_a_claim_that_has_ended_is_lost(open_sqs: OpenSqs) -> None:
    worker = open_sqs()
    worker.publish(envelopes(2))
    lost, kept = worker.reserve(["hipri"], 2)
    claim = worker._claims.get(lost.tag)
    assert claim is not None
    claim.until -= 31
    assert list(worker.extend([lost, kept]).lost) == [lost.tag]
    assert list(worker.ack([Ack(lost)]).lost) == [lost.tag]


def test_renewals_wait_out_throttling(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    taken = worker.reserve(["hipri"], 1)
    worker._claims.all()[0].until -= 10
    proxy.break_("ChangeMessageVisibilityBatch", throttled, 2)
    assert worker.extend(taken).done == 1


def test_twelve_hours_are_announced_before_they_end(
    open_sqs: OpenSqs, proxy: SqsProxy, caplog: pytest.LogCaptureFixture
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    taken = worker.reserve(["hipri"], 1)
    (claim,) = worker._claims.all()
    claim.got_at -= 43200 - 300
    claim.until -= 10
    del proxy.requests[:]
    for _ in range(2):
        assert worker.extend(taken).done == 1
    assert caplog.text.count("held for almost 12 h") == 1
    assert hidden_for(proxy) == [30]
    claim.got_at -= 280
    claim.until -= 20
    worker.extend(taken)
    assert 0 < hidden_for(proxy)[-1] <= 15, "never beyond what SQS allows"


# ---- giving back ----


def test_a_message_is_given_back_by_its_visibility(open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(3))
    worker.requeue(worker.reserve(["hipri"], 3))
    assert sqs.counts("hipri") == (3, 0, 0)
    assert hidden_for(proxy)[-3:] == [0, 0, 0]


def test_one_that_was_received_five_times_is_sent_anew(open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    for _ in range(6):
        worker.requeue(worker.reserve(["hipri"], 1))
    message = sqs.receive("hipri")[0]
    first, second = (sent.answered["Successful"][0]["MessageId"] for sent in proxy.of("SendMessageBatch"))
    assert message["MessageId"] == second != first
    assert message["Attributes"]["ApproximateReceiveCount"] == "2"


def test_a_clean_release_never_lets_the_redrive_policy_strike(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    sqs.queue("dead")
    policy = json.dumps({"deadLetterTargetArn": sqs.arn("dead"), "maxReceiveCount": 2})
    url = f"{sqs.endpoint}/123456789012/hipri"
    sqs.client.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    worker = open_sqs()
    worker._names = ("hipri",)
    worker._has_described = False
    worker.connect()
    worker.publish(envelopes(1))
    for _ in range(5):
        taken = worker.reserve(["hipri"], 1)
        assert len(taken) == 1
        worker.requeue(taken)
    assert sqs.counts("dead") == (0, 0, 0)


def test_one_that_its_workers_do_not_survive_is_taken_for_lethal(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    for _ in range(9):
        sqs.receive("hipri", visible_s=0)
    (delivery,) = worker.reserve(["hipri"], 1)
    assert delivery.crashes == 3


def test_crashes_travel_with_the_message(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    ours, theirs = open_sqs(), open_sqs("theirs/1")
    sent = envelope(1)
    attributes = {"team": {"DataType": "String", "StringValue": "a"}}
    body = base64.b64encode(sent.raw).decode()
    sqs.send("hipri", body, MessageAttributes=attributes)
    ours.requeue(ours.reserve(["hipri"], 1), crashed=True)
    (again,) = theirs.reserve(["hipri"], 1)
    assert (again.raw, again.crashes) == (sent.raw, 1)
    theirs.requeue([again])
    message = sqs.receive("hipri")[0]
    assert message["Body"] == body
    assert message["MessageAttributes"]["team"]["StringValue"] == "a"
    assert message["MessageAttributes"]["qworker.crashes"]["StringValue"] == "1"


# ---- delays ----


def test_a_delay_goes_with_the_message_as_far_as_sqs_allows(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs()
    now = time.time()
    worker.publish([envelope(1, due=now + 600), envelope(2, due=now + 7200), envelope(3, due=now - 5), envelope(4)])
    passed = math.ceil(time.time() - now)
    (request,) = proxy.of("SendMessageBatch")
    delay, *others = [entry.get("DelaySeconds") for entry in request.asked["Entries"]]
    assert 600 - passed <= delay <= 600
    assert others == [900, 0, None]


def test_what_arrives_too_early_is_parked_by_its_visibility(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    taken = worker.reserve(["hipri"], 1)
    now = time.time()
    worker.requeue(taken, due=now + 7200)
    passed = math.ceil(time.time() - now)
    assert 7200 - passed <= hidden_for(proxy)[-1] <= 7200
    assert sqs.counts("hipri") == (0, 1, 0)


def test_what_is_due_after_twelve_hours_is_delayed_anew_and_sent_before_it_is_deleted(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    taken = worker.reserve(["hipri"], 1)
    del proxy.requests[:]
    worker.requeue(taken, due=time.time() + 86400)
    actions = [r.action for r in proxy.requests if r.action.endswith("MessageBatch")]
    assert actions == ["SendMessageBatch", "DeleteMessageBatch"]
    assert proxy.of("SendMessageBatch")[0].asked["Entries"][0]["DelaySeconds"] == 900
    assert sqs.counts("hipri") == (0, 0, 1)
