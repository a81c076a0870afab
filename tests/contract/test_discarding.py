"""Delayed messages can be taken back by their task id, on every broker, however they came to be delayed."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from qworker.transports import Ack, Envelope, Transport

from support.brokers import Broker, publish_delayed, wait_for_due
from support.messages import envelope, numbers_of

FAR = 4_000_000_000.0


def of_task(task_id: str, number: int = 0, **rest: Any) -> Envelope:
    return replace(envelope(number, **{"due": FAR, **rest}), task_id=task_id)


def test_a_delayed_message_is_discarded_by_its_task_id(broker: Broker, producer: Transport) -> None:
    producer.publish([of_task("a"), of_task("b", 1)])
    assert producer.discard_delayed(["a", "unknown"]) == ["a"]
    assert [place for place, _ in broker.places()] == ["delayed"]
    assert producer.discard_delayed(["a"]) == []
    assert producer.discard_delayed([]) == []


def test_all_messages_of_one_id_are_discarded(broker: Broker, producer: Transport) -> None:
    producer.publish([of_task("a", n) for n in range(3)])
    producer.publish([of_task("other")])
    assert producer.discard_delayed(["a"]) == ["a"]
    assert len(broker.places()) == 1


def test_messages_of_one_id_are_told_apart_when_some_were_due(broker: Broker, producer: Transport) -> None:
    producer.publish([of_task("a", 1)])
    publish_delayed(producer, lambda due: [of_task("a", 2, due=due), of_task("a", 3, due=due)])
    producer.publish([of_task("a", 4)])
    wait_for_due(producer, 2)
    producer.publish([of_task("a", 5)])
    assert sorted(place for place, _ in broker.places()) == ["delayed"] * 3 + ["ready"] * 2
    assert producer.discard_delayed(["a"]) == ["a"]
    assert [place for place, _ in broker.places()] == ["ready"] * 2


def test_what_waits_or_runs_is_not_discarded(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish([of_task("a", due=None), of_task("b", due=None)])
    ours.reserve(["hipri"], 1)
    assert producer.discard_delayed(["a", "b"]) == []
    assert len(broker.places()) == 2


def test_a_message_that_was_parked_is_discarded_by_the_id_in_its_bytes(producer: Transport, ours: Transport) -> None:
    raw = b'{"body": "W10=", "headers": {"task": "t", "id": "parked"}, "properties": {}}'
    first_protocol = b'{"body": "e30=", "headers": {}, "properties": {"correlation_id": "old"}}'
    producer.publish([Envelope("hipri", raw), Envelope("hipri", first_protocol), Envelope("hipri", b"no json")])
    assert ours.requeue(ours.reserve(["hipri"], 3), due=FAR).done == 3
    assert producer.discard_delayed(["parked", "old", ""]) == ["parked", "old"]


def test_a_delayed_retry_is_discarded(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(1)])
    (delivery,) = ours.reserve(["hipri"], 1)
    ours.ack([Ack(delivery, [of_task("a", 2)])])
    assert producer.discard_delayed(["a"]) == ["a"]


def test_any_string_can_be_a_task_id(broker: Broker, producer: Transport) -> None:
    ids = ["id:x", "x", "2:x", "with space", "new\nline", "ünï", "\ud800", "a\x00b", "x" * 5000]
    producer.publish([of_task(task_id) for task_id in ids for _ in range(2)])
    assert producer.discard_delayed(ids) == ids
    assert broker.places() == []


def test_equal_times_keep_the_order_of_publishing_whatever_the_ids(producer: Transport, ours: Transport) -> None:
    publish_delayed(producer, lambda due: [of_task(f"{n % 7}-{n * 31 % 17}", n, due=due) for n in range(60)])
    wait_for_due(ours, 60)
    assert numbers_of(ours.reserve(["hipri"], 99)) == list(range(60))


def test_a_discarded_message_does_not_come_when_it_would_have_been_due(producer: Transport, ours: Transport) -> None:
    publish_delayed(producer, lambda due: [of_task("a", due=due), of_task("b", 1, due=due)])
    assert producer.discard_delayed(["a"]) == ["a"]
    wait_for_due(ours, 1)
    assert numbers_of(ours.reserve(["hipri"], 9)) == [1]


def test_many_ids_are_discarded_at_once(producer: Transport) -> None:
    ids = [f"task-{n}" for n in range(1200)]
    producer.publish([of_task(task_id, due=time.time() + 3600) for task_id in ids])
    assert producer.discard_delayed(ids) == ids
