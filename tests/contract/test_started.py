"""Started marks: of a dead owner's messages only those that were running have one more crash."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from qworker.transports import Ack, Delivery, Envelope, Rejection, Transport

from support.brokers import Broker, OpenTransport, wait_for_recovery
from support.messages import STRANGE, envelopes, number_of
from support.waiting import wait_until

LEASE_S = 0.3


@pytest.fixture
def doomed(open_on: OpenTransport) -> Transport:
    """An owner that will not renew."""
    return open_on("doomed/1", lease_s=LEASE_S)


def crashes_by_number(deliveries: list[Delivery]) -> dict[int, int]:
    return {number_of(delivery.raw): delivery.crashes for delivery in deliveries}


def test_recovery_counts_a_crash_for_what_was_started_and_for_nothing_else(
    producer: Transport, doomed: Transport, ours: Transport
) -> None:
    producer.publish(envelopes(4))
    taken = doomed.reserve(["hipri"], 4)
    doomed.mark_started([taken[1], taken[3]])
    doomed.mark_started([taken[1]])
    wait_for_recovery(ours, 4)
    again = ours.reserve(["hipri"], 9)
    assert crashes_by_number(again) == {0: 0, 1: 1, 2: 0, 3: 1}
    assert [number_of(delivery.raw) for delivery in again] == [0, 1, 2, 3]


def test_each_death_of_a_worker_that_runs_it_adds_one(
    producer: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    producer.publish(envelopes(1))
    for count in range(3):
        owner = open_on(f"doomed/{count}", lease_s=LEASE_S)
        (delivery,) = owner.reserve(["hipri"], 1)
        assert delivery.crashes == count
        owner.mark_started([delivery])
        wait_for_recovery(ours, 1)
    assert ours.reserve(["hipri"], 1)[0].crashes == 3


def test_more_than_a_batch_keeps_its_marks(producer: Transport, open_on: OpenTransport, ours: Transport) -> None:
    doomed = open_on("doomed/1", lease_s=1.0)
    producer.publish(envelopes(1200))
    taken = [delivery for _ in range(3) for delivery in doomed.reserve(["hipri"], 400)]
    doomed.mark_started(taken[::3])
    wait_for_recovery(ours, 1200)
    again = [delivery for _ in range(2) for delivery in ours.reserve(["hipri"], 1000)]
    assert crashes_by_number(again) == {number: int(number % 3 == 0) for number in range(1200)}


def test_a_renewal_and_a_reconnect_keep_the_marks(producer: Transport, doomed: Transport, ours: Transport) -> None:
    producer.publish(envelopes(2))
    taken = doomed.reserve(["hipri"], 2)
    doomed.mark_started(taken[:1])
    assert doomed.extend(taken).done == 2
    doomed.connect()
    assert doomed.extend(taken).done == 2
    wait_for_recovery(ours, 2)
    assert crashes_by_number(ours.reserve(["hipri"], 9)) == {0: 1, 1: 0}


@pytest.mark.parametrize(
    "give_back",
    [
        lambda owner, taken: owner.requeue(taken),
        lambda owner, taken: owner.requeue(taken, due=time.time() - 1),
        lambda owner, taken: owner.requeue(taken, due=time.time() + 0.05),
    ],
    ids=["to the front", "to the back", "later"],
)
def test_a_mark_ends_when_the_message_is_given_back(
    give_back: Callable[[Transport, list[Delivery]], object], producer: Transport, doomed: Transport, ours: Transport
) -> None:
    producer.publish(envelopes(1))
    taken = doomed.reserve(["hipri"], 1)
    doomed.mark_started(taken)
    give_back(doomed, taken)
    assert len(wait_until(lambda: doomed.reserve(["hipri"], 1), "it can be reserved again")) == 1
    wait_for_recovery(ours, 1)
    assert ours.reserve(["hipri"], 1)[0].crashes == 0


def test_a_mark_ends_with_the_recovery(producer: Transport, doomed: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    doomed.mark_started(doomed.reserve(["hipri"], 1))
    wait_for_recovery(ours, 1)
    # The same owner takes it again, dies again, and has not started it this time.
    assert doomed.reserve(["hipri"], 1)[0].crashes == 1
    wait_for_recovery(ours, 1)
    assert ours.reserve(["hipri"], 1)[0].crashes == 1


def test_settled_messages_leave_no_mark_behind(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(3))
    first, second, third = ours.reserve(["hipri"], 3)
    ours.mark_started([first, second, third])
    ours.ack([Ack(first)])
    ours.reject([Rejection(second, "crashed")])
    assert sorted(place for place, _ in broker.places()) == ["dead", "inflight"]
    ours.ack([Ack(third)])
    ours.requeue_dead([letter.token for letter in ours.dead_letters()])
    assert ours.reserve(["hipri"], 1)[0].crashes == 0


def test_what_is_not_held_any_more_is_passed_over(
    producer: Transport, doomed: Transport, ours: Transport, theirs: Transport
) -> None:
    producer.publish(envelopes(2))
    first, second = doomed.reserve(["hipri"], 2)
    doomed.ack([Ack(first)])
    doomed.mark_started([Delivery("nonsense", "hipri", b"{}"), first])
    doomed.mark_started([])
    theirs.mark_started([second])
    wait_for_recovery(ours, 1)
    assert crashes_by_number(ours.reserve(["hipri"], 9)) == {1: 0}


def test_a_late_mark_of_a_recovered_message_counts_nothing(
    producer: Transport, doomed: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    producer.publish(envelopes(1))
    (late,) = doomed.reserve(["hipri"], 1)
    wait_for_recovery(ours, 1)
    second = open_on("second/1", lease_s=LEASE_S)
    second.reserve(["hipri"], 1)
    doomed.mark_started([late])
    wait_for_recovery(ours, 1)
    assert ours.reserve(["hipri"], 1)[0].crashes == 0


def test_an_owner_that_is_being_stopped_blames_nothing_of_what_it_holds(
    producer: Transport, doomed: Transport, ours: Transport
) -> None:
    producer.publish(envelopes(3))
    first, second, third = doomed.reserve(["hipri"], 3)
    doomed.mark_started([first, second])
    doomed.mark_stopping()
    doomed.mark_stopping()
    doomed.connect()
    doomed.extend([first, second, third])
    doomed.mark_started([second, third])
    wait_for_recovery(ours, 3)
    assert crashes_by_number(ours.reserve(["hipri"], 9)) == {0: 0, 1: 0, 2: 0}


def test_a_stop_forgets_no_earlier_crash_and_nothing_of_others(
    producer: Transport, doomed: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    producer.publish(envelopes(2))
    doomed.requeue(doomed.reserve(["hipri"], 1), crashed=True)
    (stopped,) = doomed.reserve(["hipri"], 1)
    killed = open_on("killed/1", lease_s=LEASE_S)
    for owner, running in ((doomed, [stopped]), (killed, killed.reserve(["hipri"], 1))):
        owner.mark_started(running)
    doomed.mark_stopping()
    wait_for_recovery(ours, 2)
    assert crashes_by_number(ours.reserve(["hipri"], 9)) == {0: 1, 1: 1}


def test_strange_messages_are_marked_like_others(producer: Transport, doomed: Transport, ours: Transport) -> None:
    producer.publish([Envelope("hipri", raw) for raw in STRANGE.values()])
    doomed.mark_started(doomed.reserve(["hipri"], 100))
    wait_for_recovery(ours, len(STRANGE))
    assert {(delivery.raw, delivery.crashes) for delivery in ours.reserve(["hipri"], 100)} == {
        (raw, 1) for raw in STRANGE.values()
    }
