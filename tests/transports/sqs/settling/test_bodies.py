"""What is sent to SQS: sizes, encodings, and messages that cannot be sent."""

from __future__ import annotations

import base64
import json

import pytest

from qworker.core.errors import ConfigError, MessageError
from qworker.transports import Ack, Envelope

from support.messages import envelope, envelopes, raw_message
from support.moto_server import MotoServer
from support.sqs_workers import OpenSqs


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
