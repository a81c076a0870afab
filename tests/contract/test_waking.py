"""An idle consumer learns of work: by its descriptor where there is one, else by asking as often as it is told to."""

from __future__ import annotations

import select
import time

import pytest

from qworker.transports import Ack, Transport

from support.brokers import OpenTransport
from support.messages import envelope, envelopes, numbers_of

LIMIT_S = 20.0


def wakes(transport: Transport) -> bool:
    """Whether the descriptor becomes readable, or whether polling is how this transport learns of work."""
    fd = transport.wake_fd()
    if fd is None:
        assert transport.capabilities.idle_poll_s is not None
        return True
    return bool(select.select([fd], [], [], LIMIT_S)[0])


def is_silent(transport: Transport) -> bool:
    fd = transport.wake_fd()
    return fd is None or not select.select([fd], [], [], 0.1)[0]


def arm(transport: Transport, queues: list[str]) -> None:
    transport.drain_wake()
    assert transport.reserve(queues, 10, arm=True) == []


@pytest.mark.parametrize(
    ("queue", "priority"), [("a", 0), ("a", 9), ("b", 0), ("b", 3)], ids=["first", "last step", "second", "middle"]
)
def test_a_message_on_any_of_the_queues_wakes(producer: Transport, ours: Transport, queue: str, priority: int) -> None:
    arm(ours, ["a", "b"])
    assert is_silent(ours)
    producer.publish([envelope(1, queue, priority=priority)])
    assert wakes(ours)
    ours.drain_wake()
    assert numbers_of(ours.reserve(["a", "b"], 10)) == [1]


def test_it_can_be_armed_again_and_again(producer: Transport, ours: Transport) -> None:
    for number in range(5):
        arm(ours, ["hipri"])
        producer.publish([envelope(number)])
        assert wakes(ours)
        assert numbers_of(ours.reserve(["hipri"], 10, arm=True)) == [number]


def test_what_arrived_before_arming_is_found_by_arming(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    assert numbers_of(ours.reserve(["hipri"], 10, arm=True)) == [0]


def test_every_idle_worker_is_woken(producer: Transport, ours: Transport, theirs: Transport) -> None:
    arm(ours, ["hipri"])
    arm(theirs, ["hipri"])
    producer.publish(envelopes(1))
    assert wakes(ours)
    assert wakes(theirs)
    assert len(ours.reserve(["hipri"], 1) + theirs.reserve(["hipri"], 1)) == 1


def test_one_s_own_successor_wakes_too(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    (delivery,) = ours.reserve(["hipri"], 1)
    arm(ours, ["hipri"])
    ours.ack([Ack(delivery, [envelope(1)])])
    assert wakes(ours)
    assert numbers_of(ours.reserve(["hipri"], 1)) == [1]


def test_one_s_own_requeue_wakes_too(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    taken = ours.reserve(["hipri"], 1)
    arm(ours, ["hipri"])
    ours.requeue(taken)
    assert wakes(ours)


def test_an_earlier_due_time_wakes(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(1, due=time.time() + 600)])
    arm(ours, ["hipri"])
    producer.publish([envelope(2, due=time.time() + 60)])
    assert wakes(ours)
    next_due_s = ours.maintain().next_due_s
    assert next_due_s is not None
    assert next_due_s <= 60.1


def test_a_reserve_that_found_something_does_not_wake_itself(producer: Transport, ours: Transport) -> None:
    arm(ours, ["hipri"])
    producer.publish(envelopes(1))
    assert wakes(ours)
    ours.drain_wake()
    assert len(ours.reserve(["hipri"], 10, arm=True)) == 1
    assert is_silent(ours)


def test_an_idle_poll_sees_what_another_process_published(producer: Transport, ours: Transport) -> None:
    for number in range(3):
        assert ours.reserve(["hipri"], 1) == []
        assert ours.reserve(["hipri"], 1) == []
        producer.publish([envelope(number)])
        assert numbers_of(ours.reserve(["hipri"], 1)) == [number]


def test_an_idle_poll_looks_at_other_queues_when_asked_for_others(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(1, "b")])
    assert ours.reserve(["a"], 1) == []
    assert numbers_of(ours.reserve(["a", "b"], 1)) == [1]


def test_reconnecting_keeps_the_wake_up(producer: Transport, open_on: OpenTransport) -> None:
    worker = open_on("worker/1")
    worker.connect()
    arm(worker, ["hipri"])
    producer.publish(envelopes(1))
    assert wakes(worker)
