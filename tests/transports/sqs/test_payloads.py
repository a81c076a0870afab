"""Payloads in S3: nothing points to what is not there, nothing stays for good, and nobody reads what is not his."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker.core.errors import ConfigError, MessageError, TransportError
from qworker.tasks.codec import decode
from qworker.transports import POINTER_TYPE, Ack, Delivery, Envelope, Rejection, Transport, open_transport
from qworker.transports.sqs_offload import Pointer, is_pointer, lost, make_pointer, read_pointer

from support.messages import STRANGE, raw_message
from support.moto_server import MotoServer
from support.waiting import wait_until

Open = Callable[..., Transport]
JSON = frozenset({"application/json"})


@pytest.fixture
def s3(sqs: MotoServer) -> Iterator[Any]:
    """A client of S3, where there is a bucket `payloads`, and a queue `hipri` beside."""
    client = sqs.client_of("s3")
    client.create_bucket(Bucket="payloads")
    sqs.queue("hipri")
    yield client
    client.close()


@pytest.fixture
def open_(sqs: MotoServer) -> Iterator[Open]:
    opened: list[Transport] = []

    def make(owner: str = "", **options: Any) -> Transport:
        given = {"s3_bucket": "payloads", "s3_threshold_bytes": 5000, "wait_time_seconds": 1, **options}
        if given["s3_bucket"] is None:
            del given["s3_bucket"]
        transport = open_transport(sqs.url, options=given, owner=owner, queues=["hipri"])
        transport.connect()
        opened.append(transport)
        return transport

    yield make
    for transport in opened:
        transport.close()


def large(size: int = 20_000, **properties: Any) -> bytes:
    message = json.loads(raw_message(1, "hipri"))
    message["body"] = base64.b64encode(json.dumps([["x" * size], {}, None]).encode()).decode()
    message["properties"] |= properties
    return json.dumps(message).encode()


def keys(s3: Any) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket="payloads").get("Contents", ())]


def reserve(transport: Transport, count: int = 1) -> list[Delivery]:
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(transport.reserve(["hipri"], count - len(found)))
        return len(found) == count

    wait_until(enough, f"{count} messages come")
    return found


class TestPointers:
    def test_a_pointer_says_whose_it_is_and_where_the_payload_lies(self) -> None:
        raw = large()
        pointer = make_pointer(raw, Pointer("payloads", "a/b", len(raw)))

        assert is_pointer(pointer)
        assert read_pointer(pointer) == Pointer("payloads", "a/b", len(raw))
        whole, short = json.loads(raw), json.loads(pointer)
        assert short["headers"] == whole["headers"]
        assert short["properties"] == whole["properties"]
        assert len(pointer) < 2000

    def test_headers_that_are_too_long_are_left_out_but_not_those_that_name_the_task(self) -> None:
        message = json.loads(large())
        message["headers"] |= {"stamps": "x" * 100_000, "eta": "2030-01-01T00:00:00"}
        message["properties"] |= {"MessageGroupId": "g", "odd": "x" * 100_000}
        short = json.loads(make_pointer(json.dumps(message).encode(), Pointer("b", "k", 1)))

        assert short["headers"]["id"] == message["headers"]["id"]
        assert short["headers"]["eta"] == "2030-01-01T00:00:00"
        assert short["properties"]["MessageGroupId"] == "g"
        assert len(json.dumps(short)) < 3000

    @pytest.mark.parametrize("raw", STRANGE.values(), ids=STRANGE)
    def test_bytes_of_any_kind_can_be_pointed_to(self, raw: bytes) -> None:
        assert not is_pointer(raw)
        assert read_pointer(make_pointer(raw, Pointer("b", "k", 7))) == Pointer("b", "k", 7)

    def test_whoever_cannot_follow_a_pointer_refuses_it_with_the_reason(self) -> None:
        raw = large()
        pointer = make_pointer(raw, Pointer("payloads", "a/b", len(raw)))
        for refused, words in ((pointer, '"key": "a/b"'), (lost(pointer, "it was eaten"), "not here: it was eaten")):
            with pytest.raises(MessageError, match=words) as error:
                decode(refused, accept=JSON)
            assert error.value.reason == "payload_missing"
            assert error.value.task_id == json.loads(raw)["headers"]["id"]
            assert error.value.task == "shop.note"


class TestOnTheWay:
    def test_a_large_message_arrives_byte_for_byte_and_its_payload_goes_with_the_ack(
        self, open_: Open, s3: Any, sqs: MotoServer
    ) -> None:
        raw, worker = large(3_000_000), open_("w1")
        open_().publish([Envelope("hipri", raw)])

        (key,) = keys(s3)
        assert key.startswith(f"qworker/{json.loads(raw)['headers']['id']}/")
        (delivery,) = reserve(worker)
        assert delivery.raw == raw
        worker.ack([Ack(delivery)])
        wait_until(lambda: keys(s3) == [] and sqs.counts("hipri") == (0, 0, 0), "nothing is left")

    def test_a_small_message_does_not_go_to_s3(self, open_: Open, s3: Any, sqs: MotoServer) -> None:
        raw = raw_message(1, "hipri")
        open_().publish([Envelope("hipri", raw)])

        assert keys(s3) == []
        (message,) = sqs.receive("hipri")
        assert base64.b64decode(message["Body"]) == raw

    def test_the_queues_own_limit_counts_as_well(self, open_: Open, s3: Any, sqs: MotoServer) -> None:
        sqs.client.set_queue_attributes(
            QueueUrl=f"{sqs.endpoint}/123456789012/hipri", Attributes={"MaximumMessageSize": "200000"}
        )
        worker = open_("w1", s3_threshold_bytes=700_000)
        raw = large(120_000)
        open_(s3_threshold_bytes=700_000).publish([Envelope("hipri", raw)])

        assert len(keys(s3)) == 1
        assert reserve(worker)[0].raw == raw

    def test_many_arrive_together(self, open_: Open, s3: Any) -> None:
        raws = [large() for _ in range(25)]
        open_().publish([Envelope("hipri", raw) for raw in raws])
        worker = open_("w1")
        deliveries = reserve(worker, 25)

        assert sorted(delivery.raw for delivery in deliveries) == sorted(raws)
        worker.ack([Ack(delivery) for delivery in deliveries])
        wait_until(lambda: keys(s3) == [], "every payload is gone")

    def test_a_released_message_keeps_its_payload(self, open_: Open, s3: Any) -> None:
        raw, first = large(), open_("w1")
        open_().publish([Envelope("hipri", raw)])
        first.requeue(reserve(first))
        first.close()

        assert len(keys(s3)) == 1
        assert reserve(open_("w2"))[0].raw == raw

    def test_a_message_that_is_sent_anew_keeps_its_payload(self, open_: Open, s3: Any, leaves_calmly: None) -> None:
        raw, worker = large(), open_("w1")
        open_().publish([Envelope("hipri", raw)])
        worker.requeue(reserve(worker), crashed=True)

        (again,) = reserve(worker)
        assert (again.raw, again.crashes) == (raw, 1)
        worker.close()  # a delete that should not be would be carried out by now
        assert len(keys(s3)) == 1

    def test_a_large_successor_goes_to_s3_too(self, open_: Open, s3: Any) -> None:
        worker, raws = open_("w1"), [large(), large(30_000)]
        open_().publish([Envelope("hipri", raws[0])])
        worker.ack([Ack(reserve(worker)[0], [Envelope("hipri", raws[1])])])

        (second,) = reserve(worker)
        assert second.raw == raws[1]
        wait_until(lambda: len(keys(s3)) == 1, "the first payload is gone")

    def test_at_most_once_forgets_the_payload_when_the_task_starts(self, open_: Open, s3: Any) -> None:
        worker = open_("w1")
        open_().publish([Envelope("hipri", large())])
        worker.ack([Ack(reserve(worker)[0], at_once=True)])

        wait_until(lambda: keys(s3) == [], "the payload is gone")

    def test_a_dead_letter_keeps_its_payload_until_it_has_run_after_all(
        self, open_: Open, s3: Any, sqs: MotoServer
    ) -> None:
        sqs.queue("dead")
        raw, worker = large(), open_("w1", dead_letter_queue="dead")
        open_().publish([Envelope("hipri", raw)])
        worker.reject([Rejection(reserve(worker)[0], "unknown_task")])
        wait_until(lambda: sqs.counts("dead")[0] == 1, "it is a dead letter")

        (letter,) = worker.dead_letters()
        assert json.loads(letter.raw)["headers"] == json.loads(raw)["headers"]
        assert worker.requeue_dead([letter.token]) == 1
        (delivery,) = reserve(worker)
        assert delivery.raw == raw
        worker.ack([Ack(delivery)])
        wait_until(lambda: keys(s3) == [], "the payload is gone")

    def test_group_and_order_of_a_fifo_queue_are_kept(self, open_: Open, s3: Any, sqs: MotoServer) -> None:
        sqs.queue("steps.fifo")
        raws = [large(6000 + n, MessageGroupId="g", MessageDeduplicationId=f"d{n}") for n in range(3)]
        open_().publish([Envelope("steps.fifo", raw) for raw in raws])

        found = sqs.receive("steps.fifo")
        assert [message["Attributes"]["MessageGroupId"] for message in found] == ["g"] * 3
        assert [message["Attributes"]["MessageDeduplicationId"] for message in found] == ["d0", "d1", "d2"]


class TestTroubles:
    def test_a_message_without_its_payload_says_why_it_cannot_run(self, open_: Open, s3: Any) -> None:
        raw, worker = large(), open_("w1")
        open_().publish([Envelope("hipri", raw)])
        s3.delete_object(Bucket="payloads", Key=keys(s3)[0])

        (delivery,) = reserve(worker)
        with pytest.raises(MessageError, match=r"there is no s3://payloads/qworker/.* lifecycle rule") as error:
            decode(delivery.raw, accept=JSON)
        assert error.value.reason == "payload_missing"
        assert error.value.task_id == json.loads(raw)["headers"]["id"]

    def test_a_payload_of_another_length_is_not_run(self, open_: Open, s3: Any) -> None:
        worker = open_("w1")
        open_().publish([Envelope("hipri", large())])
        s3.put_object(Bucket="payloads", Key=keys(s3)[0], Body=raw_message(1, "hipri"))

        with pytest.raises(MessageError, match="bytes, but"):
            decode(reserve(worker)[0].raw, accept=JSON)

    @pytest.mark.parametrize(("bucket", "key"), [("private", "qworker/x"), ("payloads", "others/x")])
    def test_a_pointer_elsewhere_is_neither_read_nor_deleted(
        self, open_: Open, s3: Any, sqs: MotoServer, bucket: str, key: str
    ) -> None:
        s3.create_bucket(Bucket="private")
        raw = large()
        s3.put_object(Bucket=bucket, Key=key, Body=raw)
        sqs.send("hipri", base64.b64encode(make_pointer(raw, Pointer(bucket, key, len(raw)))).decode())
        worker = open_("w1")

        (delivery,) = reserve(worker)
        with pytest.raises(MessageError, match="this worker reads s3://payloads/qworker/"):
            decode(delivery.raw, accept=JSON)
        worker.ack([Ack(delivery)])
        wait_until(lambda: sqs.counts("hipri") == (0, 0, 0), "the message is gone")
        worker.close()
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == raw

    def test_a_worker_without_the_option_says_so(self, open_: Open, s3: Any) -> None:
        open_().publish([Envelope("hipri", large())])

        (delivery,) = reserve(open_("w1", s3_bucket=None))
        assert json.loads(delivery.raw)["content-type"] == POINTER_TYPE
        with pytest.raises(MessageError, match="the payload is not here"):
            decode(delivery.raw, accept=JSON)

    def test_while_s3_is_away_a_message_waits_and_loses_nothing(
        self, open_: Open, sqs: MotoServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        sqs.queue("hipri")
        with MotoServer() as elsewhere:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", elsewhere.endpoint)
            client = elsewhere.client_of("s3")
            client.create_bucket(Bucket="payloads")
            client.close()
            worker, producer = open_("w1"), open_()
            producer.publish([Envelope("hipri", large()), Envelope("hipri", raw_message(1, "hipri"))])
            elsewhere.stop()

            with caplog.at_level(logging.WARNING, "qworker.transports"):
                found: list[Delivery] = []

                def told() -> bool:
                    found.extend(worker.reserve(["hipri"], 5))
                    return "its message is tried again in 15 s" in caplog.text and len(found) == 1

                wait_until(told, "the small one comes, and the failure is told")
            assert len(found[0].raw) < 2000
            wait_until(lambda: sqs.counts("hipri") == (0, 2, 0), "it is hidden")
            assert worker.reserve(["hipri"], 5) == []
            with pytest.raises(TransportError, match="cannot be written") as refusal:
                producer.publish([Envelope("hipri", large())])
            assert refusal.value.nothing_sent

    def test_a_bucket_that_does_not_exist_ends_the_start(self, open_: Open, s3: Any) -> None:
        with pytest.raises(ConfigError, match="there is no S3 bucket 'payload'"):
            open_("w1", s3_bucket="payload")

    def test_what_no_worker_would_take_is_not_sent(self, open_: Open, s3: Any) -> None:
        with pytest.raises(MessageError, match="at most"):
            open_().publish([Envelope("hipri", b"x" * (64 * 1024 * 1024 + 1))])
        assert keys(s3) == []

    def test_payloads_of_acked_messages_are_deleted_before_a_worker_leaves(
        self, open_: Open, s3: Any, leaves_calmly: None
    ) -> None:
        worker = open_("w1")
        open_().publish([Envelope("hipri", large())])
        worker.ack([Ack(reserve(worker)[0])])
        worker.close()

        assert keys(s3) == []
