"""Settling on SQS: order, batches, partial failures, counters, delays, backoff, dead letters, sizes, twelve hours."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker.core.errors import ConfigError, MessageError, TransportError
from qworker.transports import Ack, Delivery, Envelope, Rejection

from support.brokers import PatientTransport
from support.messages import envelope, envelopes, numbers_of, raw_message
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, throttled
from support.waiting import wait_until

OpenSqs = Callable[..., PatientTransport]
#: Nothing waits longer than a test; a poll that finds nothing comes back at once.
QUICK = {"wait_time_seconds": 0, "polling_interval": 0.02}


@pytest.fixture
def proxy(sqs: MotoServer) -> Iterator[SqsProxy]:
    with SqsProxy(sqs.port) as proxy:
        yield proxy


@pytest.fixture
def open_sqs(sqs: MotoServer, proxy: SqsProxy) -> Iterator[OpenSqs]:
    """A worker's transport, over the proxy."""
    opened = []
    sqs.queue("hipri")

    def make(owner: str = "w/1", lease_s: float = 30.0, **options: Any) -> PatientTransport:
        transport = PatientTransport(proxy.url, {**QUICK, **options}, owner, lease_s)
        transport.connect()
        opened.append(transport)
        return transport

    yield make
    for transport in opened:
        transport.close()


def predefined(sqs: MotoServer, proxy: SqsProxy, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{proxy.port}/123456789012/hipri"
    return {"predefined_queues": {"hipri": {"url": url, **more}}}


def hidden_for(proxy: SqsProxy) -> list[int]:
    """For how long messages were made invisible, in order."""
    requests = proxy.of("ChangeMessageVisibilityBatch")
    return [entry["VisibilityTimeout"] for request in requests for entry in request.asked["Entries"]]


# ---- order and batches ----


def test_deletes_and_sends_go_ten_to_a_request(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(30))
    taken = worker.reserve(["hipri"], 30)
    worker.ack([Ack(delivery) for delivery in taken])
    counts = proxy.counts()
    assert (len(taken), counts["SendMessageBatch"], counts["DeleteMessageBatch"]) == (30, 3, 3)


def test_what_follows_is_sent_before_the_message_is_deleted(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    (delivery,) = worker.reserve(["hipri"], 1)
    del proxy.requests[:]
    worker.ack([Ack(delivery, [envelope(1), envelope(2)])])
    order = [r.action for r in proxy.requests if r.action in ("SendMessageBatch", "DeleteMessageBatch")]
    assert order == ["SendMessageBatch", "DeleteMessageBatch"]


def test_entries_that_fail_for_a_moment_are_tried_again_alone(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    def some_fail(asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        ids = [entry["Id"] for entry in asked["Entries"]]
        return 200, {
            "Successful": [],
            "Failed": [{"Id": i, "Code": "InternalError", "SenderFault": False} for i in ids],
        }

    worker = open_sqs()
    worker.publish(envelopes(3))
    taken = worker.reserve(["hipri"], 3)
    proxy.break_("DeleteMessageBatch", some_fail, 2)
    worker.ack([Ack(delivery) for delivery in taken])
    assert sqs.counts("hipri") == (0, 0, 0)
    assert proxy.counts()["DeleteMessageBatch"] >= 3


def test_an_entry_that_the_answer_forgets_is_sent_again(open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(2))
    taken = worker.reserve(["hipri"], 2)
    proxy.break_("DeleteMessageBatch", lambda asked: (200, {}))
    worker.ack([Ack(delivery) for delivery in taken])
    assert sqs.counts("hipri") == (0, 0, 0)


def test_a_late_ack_is_counted_and_not_fatal(
    open_sqs: OpenSqs, proxy: SqsProxy, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": True}]}

    worker = open_sqs()
    worker.publish(envelopes(1))
    (delivery,) = worker.reserve(["hipri"], 1)
    proxy.break_("DeleteMessageBatch", gone)
    assert worker.ack([Ack(delivery)]).done == 1
    assert worker._settling.late == 1
    assert "came too late" in caplog.text
    assert list(worker.ack([Ack(delivery)]).lost) == [delivery.tag]


def test_an_ack_that_somebody_waits_for_says_that_it_came_too_late(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(2))
    late, good = worker.reserve(["hipri"], 2)
    said = {"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": True}]}
    proxy.break_("DeleteMessageBatch", lambda asked: (200, said))
    assert list(worker.ack([Ack(late, at_once=True)]).lost) == [late.tag]
    assert worker.ack([Ack(good, at_once=True)]).done == 1


def test_an_ack_that_somebody_waits_for_fails_with_the_network(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    (delivery,) = worker.reserve(["hipri"], 1)
    proxy.is_cut = True
    with pytest.raises(TransportError):
        worker.ack([Ack(delivery, at_once=True)])
    proxy.is_cut = False
    worker.connect()
    assert worker.ack([Ack(delivery, at_once=True)]).done == 1


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


def test_one_that_was_received_five_times_is_sent_anew(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    ids = set()
    for _ in range(6):
        worker.requeue(worker.reserve(["hipri"], 1))
    message = sqs.receive("hipri")[0]
    ids.add(message["MessageId"])
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
    (request,) = proxy.of("SendMessageBatch")
    delays = [entry.get("DelaySeconds") for entry in request.asked["Entries"]]
    assert delays == [600, 900, 0, None]


def test_what_arrives_too_early_is_parked_by_its_visibility(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    worker.requeue(worker.reserve(["hipri"], 1), due=time.time() + 7200)
    assert hidden_for(proxy)[-1] in (7200, 7201)
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


# ---- failed runs ----


def fail(worker: PatientTransport, delivery: Delivery) -> None:
    assert worker.reject([Rejection(delivery, "failed")]).done == 1


def test_a_listed_task_s_failures_follow_the_policy(open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy) -> None:
    options = predefined(sqs, proxy, backoff_policy={1: 1, 2: 2, 3: 40}, backoff_tasks=["shop.note"])
    worker = open_sqs(**options)
    worker.publish(envelopes(1))
    waits = []
    for _ in range(3):
        (delivery,) = wait_until(lambda: worker.reserve(["hipri"], 1), "it is there again", 10.0)
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
        worker.requeue(wait_until(lambda: worker.reserve(["hipri"], 1), "it is there again", 10.0))
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

    wait_until(is_moved, "SQS has moved it", 10.0)


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


# ---- sizes and bodies ----


def large(size: int) -> bytes:
    message = json.loads(raw_message(1, "hipri"))
    message["body"] = "x" * size
    return json.dumps(message).encode()


def test_a_message_above_the_queue_s_limit_is_refused_with_both_numbers(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    producer = open_sqs("")
    with pytest.raises(MessageError, match=r"takes 1048576") as caught:
        producer.publish([Envelope("hipri", large(1_100_000)), *envelopes(1)])
    assert caught.value.reason == "oversize"
    assert sqs.counts("hipri") == (0, 0, 0)


def test_one_that_fits_as_plain_json_only_is_sent_so(open_sqs: OpenSqs) -> None:
    worker = open_sqs()
    raw = large(900_000)
    worker.publish([Envelope("hipri", raw)])
    assert worker.reserve(["hipri"], 1)[0].raw == raw


def test_large_messages_share_requests_as_far_as_they_fit(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    worker = open_sqs()
    worker.publish([Envelope("hipri", large(100_000)) for _ in range(12)])
    assert sqs.counts("hipri") == (12, 0, 0)


def test_what_follows_and_does_not_fit_makes_a_dead_letter_of_its_parent(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    sqs.queue("dead")
    worker = open_sqs(dead_letter_queue="dead")
    worker.publish(envelopes(1))
    worker.ack([Ack(worker.reserve(["hipri"], 1)[0], [Envelope("hipri", large(1_100_000))])])
    (letter,) = worker.dead_letters()
    assert letter.reason == "successor_refused"
    assert sqs.counts("hipri") == (0, 0, 0)


@pytest.mark.parametrize("plain", [True, False])
def test_bodies_are_read_whatever_way_they_are_written(open_sqs: OpenSqs, sqs: MotoServer, plain: bool) -> None:
    worker = open_sqs(sqs_base64_encoding=not plain)
    sent = envelope(1)
    worker.publish([sent])
    body = sqs.receive("hipri", visible_s=0)[0]["Body"]
    assert body == (sent.raw.decode() if plain else base64.b64encode(sent.raw).decode())
    assert worker.reserve(["hipri"], 1)[0].raw == sent.raw


def test_unique_messages_are_refused(open_sqs: OpenSqs) -> None:
    with pytest.raises(ConfigError, match="MessageDeduplicationId"):
        open_sqs("").publish([Envelope("hipri", b"{}", unique=True)])


def test_what_an_at_most_once_task_starts_and_cannot_be_sent_is_told(
    open_sqs: OpenSqs, sqs: MotoServer, caplog: pytest.LogCaptureFixture
) -> None:
    worker = open_sqs()
    worker.publish([Envelope("hipri", large(1_100_000)), envelope(1), envelope(2, "nowhere")])
    assert sqs.counts("hipri") == (1, 0, 0)
    assert caplog.text.count("cannot be sent and is lost") == 2


# ---- what a standard queue delivers twice ----


def twice(asked: dict[str, Any], sqs: MotoServer) -> tuple[int, dict[str, Any]]:
    """An answer with each message under two receipts, as concurrent servers of AWS's may give."""
    first = sqs.receive("hipri")
    return 200, {"Messages": [*first, *({**m, "ReceiptHandle": m["ReceiptHandle"]} for m in first)]}


def test_a_message_that_comes_twice_while_we_hold_it_runs_once(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(3))
    proxy.break_("ReceiveMessage", lambda asked: twice(asked, sqs))
    taken = worker.reserve(["hipri"], 10)
    assert sorted(numbers_of(taken)) == [0, 1, 2]
    worker.ack([Ack(delivery) for delivery in taken])
    assert sqs.counts("hipri") == (0, 0, 0)


def test_a_message_that_comes_again_after_its_delete_is_deleted_again(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_sqs()
    worker.publish(envelopes(1))
    copy = sqs.receive("hipri", visible_s=0)
    worker.ack([Ack(delivery) for delivery in worker.reserve(["hipri"], 1)])
    del proxy.requests[:]
    proxy.break_("ReceiveMessage", lambda asked: (200, {"Messages": copy}))
    assert worker.reserve(["hipri"], 1) == []
    assert proxy.counts()["DeleteMessageBatch"] == 1
