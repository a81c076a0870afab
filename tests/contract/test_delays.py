"""Delayed messages: they wait on the broker and are moved once, when due, by whoever looks."""

from __future__ import annotations

import time

from qworker.transports import Envelope, Maintenance, Transport

from support.brokers import Broker, publish_delayed, soon, wait_for_due
from support.messages import STRANGE, envelope, envelopes, numbers_of
from support.waiting import wait_until

FAR = 4_000_000_000.0


def test_a_delayed_message_is_not_delivered_before_its_time(
    broker: Broker, producer: Transport, ours: Transport
) -> None:
    producer.publish([envelope(1, due=FAR)])
    assert [place for place, _ in broker.places()] == ["delayed"]
    due = soon()
    producer.publish([envelope(2, due=due)])
    taken = wait_until(lambda: ours.reserve(["hipri"], 9), "the delayed message is delivered")
    assert time.time() >= due - 0.002
    assert numbers_of(taken) == [2]


def test_reserve_moves_what_is_due_without_anybody_s_help(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(1, due=time.time() + 0.05)])
    wait_until(lambda: ours.reserve(["hipri"], 1), "the delayed message is delivered")


def test_a_time_in_the_past_means_at_once(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(1, due=1.0), envelope(2, due=time.time() - 1)])
    assert numbers_of(ours.reserve(["hipri"], 9)) == [1, 2]


def test_delayed_messages_arrive_in_the_order_of_their_times(producer: Transport, ours: Transport) -> None:
    publish_delayed(producer, lambda due: [envelope(n, due=due + n / 100) for n in (3, 1, 2, 0)])
    wait_for_due(ours, 4)
    assert numbers_of(ours.reserve(["hipri"], 9)) == [0, 1, 2, 3]


def test_equal_times_keep_the_order_of_publishing(producer: Transport, ours: Transport) -> None:
    publish_delayed(producer, lambda due: [envelope(n, due=due) for n in range(20)])
    wait_for_due(ours, 20)
    assert numbers_of(ours.reserve(["hipri"], 99)) == list(range(20))


def test_a_delayed_message_keeps_queue_priority_side_and_bytes(producer: Transport, ours: Transport) -> None:
    publish_delayed(
        producer,
        lambda due: [
            envelope(1, priority=9, due=due),
            envelope(2, "with space", due=due),
            envelope(3, due=due, front=True),
            Envelope("odd", STRANGE["nul bytes"], due=due),
        ],
    )
    wait_for_due(ours, 4)
    producer.publish([envelope(4)])
    assert numbers_of(ours.reserve(["hipri"], 9)) == [3, 4, 1]
    assert numbers_of(ours.reserve(["with space"], 9)) == [2]
    assert ours.reserve(["odd"], 9)[0].raw == STRANGE["nul bytes"]


def test_each_is_moved_once_when_several_workers_look(
    broker: Broker, producer: Transport, ours: Transport, theirs: Transport
) -> None:
    publish_delayed(producer, lambda due: [envelope(n, due=due + n / 1000) for n in range(100)])
    moved = 0

    def all_moved() -> bool:
        nonlocal moved
        moved += ours.maintain().moved + theirs.maintain().moved
        return moved >= 100

    wait_until(all_moved, "100 delayed messages are moved")
    assert moved == 100
    assert sorted(numbers_of(ours.reserve(["hipri"], 200))) == list(range(100))


def test_maintain_says_when_the_next_one_is_due(producer: Transport, ours: Transport) -> None:
    assert ours.maintain().next_due_s is None
    due = time.time() + 60
    producer.publish([envelope(1, due=due + 540), envelope(2, due=due)])
    asked = time.time()
    next_due_s = ours.maintain().next_due_s
    assert next_due_s is not None
    assert due - time.time() - 0.1 <= next_due_s <= due - asked + 0.1


def test_more_than_a_batch_is_said_to_be_more(producer: Transport, ours: Transport) -> None:
    publish_delayed(producer, lambda due: [envelope(n, due=due) for n in range(1300)])

    def maintain_when_due() -> Maintenance | None:
        did = ours.maintain()
        return did if did.moved else None

    first = wait_until(maintain_when_due, "they are due")
    assert first is not None
    assert first.more
    total, last = first.moved, first
    while last.more:
        last = ours.maintain()
        total += last.moved
    assert total == 1300
    assert producer.depths(["hipri"]) == {"hipri": 1300}
    assert numbers_of(d for _ in range(2) for d in ours.reserve(["hipri"], 1000)) == list(range(1300))


def test_many_delayed_messages_far_ahead_do_not_hold_up_others(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(n, due=time.time() + 3600) for n in range(50)])
    producer.publish(envelopes(2))
    assert numbers_of(ours.reserve(["hipri"], 9)) == [0, 1]
