"""Acks on SQS: order, batches, partial failures, late ones, and what a standard queue delivers twice."""

from __future__ import annotations

from typing import Any

import pytest

from qworker.core.errors import TransportError
from qworker.transports import Ack

from support.messages import envelope, envelopes, numbers_of
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy
from support.sqs_workers import OpenSqs

# ---- order and batches ----


def test_deletes_and_sends_go_ten_to_a_request(open_sqs: OpenSqs, proxy: SqsProxy, travels_together: None) -> None:
    worker = open_sqs()
    worker.publish(envelopes(30))
    taken = worker.reserve(["hipri"], 30)
    worker.ack([Ack(delivery) for delivery in taken])
    counts = proxy.counts()
    assert (len(taken), counts["SendMessageBatch"], counts["DeleteMessageBatch"]) == (30, 3, 3)


def test_hundreds_are_settled_in_one_call(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    worker = open_sqs()
    worker.publish(envelopes(300))
    assert worker.requeue(worker.reserve(["hipri"], 300)).done == 300
    taken = worker.reserve(["hipri"], 300)
    assert sorted(numbers_of(taken)) == list(range(300))
    assert worker.extend(taken).done == 300
    assert worker.ack([Ack(delivery) for delivery in taken]).done == 300
    assert sqs.counts("hipri") == (0, 0, 0)


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
