"""Locks of unique messages: one message for each task id, from its publishing until it has ended for good."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from qworker.transports import Ack, Delivery, Envelope, Rejection, Transport, make_seal

from support.brokers import (
    Broker,
    OpenTransport,
    publish_delayed,
    soon,
    wait_for_due,
    wait_for_ready,
    wait_for_recovery,
)
from support.messages import envelope, envelopes, numbers_of
from support.waiting import wait_until

FAR = 4_000_000_000.0

# Headers that are not ours, or forged.
_LOCK = b"a" * 40 + b"-" + b"b" * 16
STRANGERS = [
    b'"unique": "nonce"',
    b'"unique": true',
    b'"unique": "12-34-56"',
    b'"unique": {"unique": "' + _LOCK + b'-1"}',
    b'"unique": "' + _LOCK + b"-" + b"9" * 5000 + b'"',
    b'"unique": "' + _LOCK + b'-999999999999999"',
    b'"unique": "' + _LOCK + b'-0"',
]


def unique(task_id: str = "a", number: int = 0, *, lasts_s: float | None = None, **rest: Any) -> Envelope:
    """A message that bears a lock of its own; `rest` goes to Envelope."""
    plain = envelope(number, **rest)
    marked = plain.raw.replace(b'"retries": 0', b'"retries": 0, "unique": "%s"' % make_seal(task_id, lasts_s).encode())
    assert marked != plain.raw
    return replace(plain, raw=marked, task_id=task_id, unique=True)


def take(transport: Transport) -> Delivery:
    (delivery,) = transport.reserve(["hipri"], 1)
    return delivery


def is_free(producer: Transport, task_id: str = "a") -> bool:
    """Whether the lock could be had; leaves it as it was."""
    probe = unique(task_id, queue="probe")
    if producer.publish([probe]):
        return False
    producer.purge(["probe"])
    return True


def test_a_task_id_is_published_once_while_its_message_waits(broker: Broker, producer: Transport) -> None:
    first, second = unique(), unique(number=1)
    assert producer.publish([first]) == []
    assert producer.publish([second]) == [second]
    assert broker.places() == [("ready", first.raw)]


def test_two_in_one_call_are_one(broker: Broker, producer: Transport) -> None:
    first, second, other = unique(), unique(), unique("b")
    assert producer.publish([first, second, other, *envelopes(1)]) == [second]
    assert len(broker.places()) == 3


def test_the_same_message_is_not_published_twice(broker: Broker, producer: Transport) -> None:
    first = unique()
    assert producer.publish([first]) == []
    assert producer.publish([first]) == [first]
    assert len(broker.places()) == 1


def test_a_delayed_message_has_the_lock_as_well(producer: Transport, ours: Transport) -> None:
    publish_delayed(producer, lambda due: [unique(due=due)])
    assert len(producer.publish([unique()])) == 1
    assert len(producer.publish([unique(due=FAR)])) == 1
    wait_for_due(ours, 1)
    assert len(producer.publish([unique()])) == 1
    ours.ack([Ack(take(ours))])
    assert is_free(producer)


def test_a_message_that_is_held_has_the_lock_until_it_is_acked(producer: Transport, ours: Transport) -> None:
    producer.publish([unique()])
    delivery = take(ours)
    assert not is_free(producer)
    ours.ack([Ack(delivery)])
    assert is_free(producer)


def test_a_retry_goes_on_bearing_the_lock(producer: Transport, ours: Transport) -> None:
    first = unique()
    producer.publish([first])
    retry = replace(first, raw=first.raw.replace(b'"retries": 0', b'"retries": 1'), unique=False, due=soon())
    ours.ack([Ack(take(ours), [envelope(5), retry])])
    assert not is_free(producer)
    wait_for_ready(ours, 2)
    ours.ack([Ack(delivery) for delivery in ours.reserve(["hipri"], 9)])
    assert is_free(producer)


def test_a_successor_of_another_task_ends_the_lock_and_can_have_its_own(
    broker: Broker, producer: Transport, ours: Transport
) -> None:
    producer.publish([unique("a"), unique("c", queue="other")])
    ours.ack([Ack(take(ours), [unique("b"), unique("c")])])
    assert is_free(producer, "a")
    assert not is_free(producer, "b")
    assert len(broker.places()) == 2, "a successor whose lock another message has is not published"


def test_a_message_that_was_given_back_has_the_lock(producer: Transport, ours: Transport) -> None:
    producer.publish([unique()])
    ours.requeue([take(ours)])
    assert not is_free(producer)
    ours.requeue([take(ours)], crashed=True)
    assert not is_free(producer)
    ours.requeue([take(ours)], due=FAR)
    assert not is_free(producer)


def test_a_message_of_a_dead_worker_has_the_lock(producer: Transport, ours: Transport, open_on: OpenTransport) -> None:
    doomed = open_on("doomed/1", lease_s=0.3)
    producer.publish([unique()])
    doomed.mark_started([take(doomed)])
    wait_for_recovery(ours, 1)
    assert not is_free(producer)
    ours.ack([Ack(take(ours))])
    assert is_free(producer)


def test_a_dead_letter_has_no_lock_and_takes_it_when_it_comes_back(producer: Transport, ours: Transport) -> None:
    producer.publish([unique()])
    ours.reject([Rejection(take(ours), "crashed")])
    assert is_free(producer)
    (letter,) = producer.dead_letters()
    assert producer.requeue_dead([letter.token]) == 1
    assert not is_free(producer)
    ours.ack([Ack(take(ours))])
    assert is_free(producer)


def test_a_dead_letter_stays_while_another_message_has_its_lock(
    broker: Broker, producer: Transport, ours: Transport
) -> None:
    producer.publish([unique(number=1)])
    ours.reject([Rejection(take(ours), "crashed")])
    producer.publish([unique(number=2)])
    (letter,) = producer.dead_letters()
    assert producer.requeue_dead([letter.token]) == 0
    assert sorted(place for place, _ in broker.places()) == ["dead", "ready"]
    ours.ack([Ack(take(ours))])
    assert producer.requeue_dead([letter.token]) == 1
    assert numbers_of([take(ours)]) == [1]


def test_discarding_a_delayed_message_ends_its_lock(producer: Transport) -> None:
    producer.publish([unique(due=FAR)])
    assert producer.discard_delayed(["a"]) == ["a"]
    assert is_free(producer)


def test_purging_ends_the_locks_of_what_it_deletes(producer: Transport, ours: Transport) -> None:
    producer.publish([*(unique(f"t{n}", n) for n in range(3)), unique("far", due=FAR)])
    held = take(ours)
    producer.publish(envelopes(1200))
    assert producer.purge(["hipri"]) == 1202
    assert [is_free(producer, name) for name in ("t0", "t1", "t2", "far")] == [False, True, True, False]
    ours.ack([Ack(held)])
    assert is_free(producer, "t0")


def test_a_lock_ends_by_itself(producer: Transport, ours: Transport) -> None:
    producer.publish([unique("b", lasts_s=600)])
    longer = take(ours)
    producer.publish([unique(number=1, lasts_s=0.3)])
    delivery = take(ours)
    wait_until(lambda: producer.publish([unique(number=2)]) == [], "the lock has ended")
    assert not is_free(producer, "b"), "its time is not over yet"
    ours.ack([Ack(delivery), Ack(longer)])
    assert not is_free(producer), "the ack of the first message does not end the second one's lock"
    assert is_free(producer, "b")


def test_the_time_of_a_lock_counts_from_when_its_message_is_due(producer: Transport) -> None:
    producer.publish([unique(lasts_s=0.05, due=time.time() + 60)])
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert len(producer.publish([unique()])) == 1


def test_locks_that_nobody_released_do_not_stay_for_ever(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish([unique(f"t{n}", lasts_s=0.05) for n in range(50)])
    producer.publish([unique("last", lasts_s=600)])
    wait_until(lambda: is_free(producer, "t49"), "the locks have ended")
    ours.ack([Ack(delivery) for delivery in ours.reserve(["hipri"], 100)])
    assert is_free(producer, "last")


def test_producers_that_publish_at_the_same_instant_publish_once(broker: Broker, open_on: OpenTransport) -> None:
    producers = [open_on() for _ in range(6)]
    gate = threading.Barrier(len(producers))
    published: list[str] = []

    def publish(producer: Transport) -> None:
        for turn in range(20):
            gate.wait(20)
            if not producer.publish([unique(f"t{turn}", due=FAR if turn % 2 else None)]):
                published.append(f"t{turn}")

    threads = [threading.Thread(target=publish, args=(producer,)) for producer in producers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(published) == sorted(f"t{turn}" for turn in range(20))
    assert len(broker.places()) == 20


@pytest.mark.parametrize("header", STRANGERS)
def test_a_header_of_somebody_else_harms_nobody(
    header: bytes, broker: Broker, producer: Transport, ours: Transport
) -> None:
    producer.publish([unique()])
    delivery = take(ours)
    raw = envelope(1).raw.replace(b'"retries": 0', header)
    producer.publish([Envelope("hipri", raw), Envelope("hipri", raw)])
    ours.ack([Ack(d) for d in ours.reserve(["hipri"], 9)])
    assert broker.places() == [("inflight", delivery.raw)]
    assert not is_free(producer)
