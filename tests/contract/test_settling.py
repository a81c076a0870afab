"""Ack, requeue, reject, recall: each message is settled once, by whoever holds it."""

from __future__ import annotations

import time

from qworker.transports import Ack, Delivery, Envelope, Rejection, Transport

from support.brokers import (
    Broker,
    OpenTransport,
    publish_delayed,
    soon,
    wait_for_due,
    wait_for_ready,
    wait_for_recovery,
)
from support.messages import STRANGE, envelope, envelopes, numbers_of
from support.waiting import wait_until

FAR = 4_000_000_000.0


def held_by(transport: Transport) -> list[int]:
    return numbers_of(transport.recall(()))


def lose_the_lease(owner: Transport, other: Transport, count: int) -> None:
    """Wait until the short lease of `owner` has ended and `other` has given back its messages."""
    wait_for_recovery(other, count)
    assert owner.recall(()) == []


def test_an_acked_message_is_gone(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(3))
    first, second, third = ours.reserve(["hipri"], 3)
    settled = ours.ack([Ack(first), Ack(third)])
    assert (settled.done, list(settled.lost)) == (2, [])
    assert broker.places() == [("inflight", second.raw)]


def test_successors_are_published_with_the_ack(producer: Transport, ours: Transport, theirs: Transport) -> None:
    producer.publish(envelopes(2))
    first, second = ours.reserve(["hipri"], 2)
    links = [envelope(10, "a"), envelope(11, "b", priority=3)]
    ours.ack([Ack(first, links), Ack(second, [envelope(12, "a")])])
    assert numbers_of(theirs.reserve(["a"], 9)) == [10, 12]
    assert numbers_of(theirs.reserve(["b"], 9)) == [11]


def test_a_successor_may_wait_for_its_time(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(2))
    first, second = ours.reserve(["hipri"], 2)
    ours.ack([Ack(first, [envelope(1, due=FAR)])])
    assert sorted(place for place, _ in broker.places()) == ["delayed", "inflight"]
    ours.ack([Ack(second, [envelope(2, due=soon())])])
    assert numbers_of(wait_until(lambda: ours.reserve(["hipri"], 9), "its time has come")) == [2]


def test_a_successor_may_go_to_the_front(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(3))
    (delivery,) = ours.reserve(["hipri"], 1)
    ours.ack([Ack(delivery, [envelope(9, front=True)])])
    assert numbers_of(ours.reserve(["hipri"], 9)) == [9, 1, 2]


def test_a_repeated_ack_does_nothing_and_says_so(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    (delivery,) = ours.reserve(["hipri"], 1)
    acks = [Ack(delivery, [envelope(1, "next")])]
    ours.ack(acks)
    settled = ours.ack(acks)
    assert (settled.done, list(settled.lost)) == (0, [delivery.tag])
    assert producer.depths(["next"]) == {"next": 1}


def test_nobody_settles_what_another_one_holds(
    broker: Broker, producer: Transport, ours: Transport, theirs: Transport
) -> None:
    producer.publish(envelopes(1))
    (delivery,) = ours.reserve(["hipri"], 1)
    for settled in (
        theirs.ack([Ack(delivery, [envelope(1)])]),
        theirs.requeue([delivery]),
        theirs.requeue([delivery], due=time.time() + 9),
        theirs.reject([Rejection(delivery, "unknown_task")]),
        theirs.extend([delivery]),
    ):
        assert (settled.done, list(settled.lost)) == (0, [delivery.tag])
    assert broker.places() == [("inflight", delivery.raw)]


def test_settling_nothing_is_allowed(ours: Transport) -> None:
    for settled in (ours.ack([]), ours.requeue([]), ours.reject([]), ours.extend([])):
        assert (settled.done, list(settled.lost)) == (0, [])


def test_a_tag_that_never_existed_is_lost(ours: Transport) -> None:
    stray = Delivery("nonsense", "hipri", b"{}")
    for settled in (ours.ack([Ack(stray)]), ours.requeue([stray]), ours.reject([Rejection(stray, "x")])):
        assert list(settled.lost) == ["nonsense"]


def test_a_late_ack_of_a_recovered_message_does_nothing(
    broker: Broker, producer: Transport, open_on: OpenTransport, theirs: Transport
) -> None:
    slow = open_on("slow/1", lease_s=0.05)
    producer.publish(envelopes(1))
    (late,) = slow.reserve(["hipri"], 1)
    lose_the_lease(slow, theirs, 1)
    (again,) = theirs.reserve(["hipri"], 1)
    settled = slow.ack([Ack(late, [envelope(1, "next")])])
    assert list(settled.lost) == [late.tag]
    assert broker.places() == [("inflight", again.raw)]
    assert theirs.ack([Ack(again)]).done == 1


def test_an_owner_that_gets_its_lost_message_back_cannot_settle_the_first_receipt(
    producer: Transport, open_on: OpenTransport, theirs: Transport
) -> None:
    slow = open_on("slow/1", lease_s=0.05)
    producer.publish(envelopes(1))
    (first,) = slow.reserve(["hipri"], 1)
    lose_the_lease(slow, theirs, 1)
    (second,) = slow.reserve(["hipri"], 1)
    assert list(slow.ack([Ack(first)]).lost) == [first.tag]
    assert slow.ack([Ack(second)]).done == 1


def test_requeued_messages_are_the_next_ones_in_their_order(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(6))
    taken = ours.reserve(["hipri"], 4)
    ours.requeue(taken[1:])
    assert numbers_of(ours.reserve(["hipri"], 9)) == [1, 2, 3, 4, 5]


def test_requeued_messages_return_to_their_own_queue_and_priority(
    producer: Transport, ours: Transport, theirs: Transport
) -> None:
    producer.publish([envelope(0, "a", priority=9), envelope(1, "b", priority=3), envelope(2, "a")])
    ours.requeue(ours.reserve(["a", "b"], 9))
    producer.publish([envelope(3, "a", priority=6)])
    assert numbers_of(theirs.reserve(["a"], 9)) == [2, 3, 0]
    assert numbers_of(theirs.reserve(["b"], 9)) == [1]


def test_a_repeated_requeue_does_nothing(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    taken = ours.reserve(["hipri"], 1)
    ours.requeue(taken, crashed=True)
    assert list(ours.requeue(taken, crashed=True).lost) == [taken[0].tag]
    assert [place for place, _ in broker.places()] == ["ready"]
    assert ours.reserve(["hipri"], 1)[0].crashes == 1


def test_a_requeue_may_wait_for_its_time(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(4))
    ours.requeue(ours.reserve(["hipri"], 2), due=FAR)
    assert sorted(place for place, _ in broker.places()) == ["delayed", "delayed", "ready", "ready"]
    ours.requeue(ours.reserve(["hipri"], 9), due=soon())
    wait_for_ready(ours, 2)
    assert numbers_of(ours.reserve(["hipri"], 9)) == [2, 3]


def requeue_ahead(transport: Transport, count: int) -> None:
    """Requeue so many messages for a moment that is still to come when that has been done."""
    lead_s = 0.5
    while True:
        due = soon(lead_s)
        assert transport.requeue(transport.reserve(["hipri"], count), due=due).done == count
        if time.time() < due:
            return
        lead_s *= 3


def test_a_requeue_goes_behind_what_waits_when_its_time_comes(producer: Transport, ours: Transport) -> None:
    publish_delayed(producer, lambda due: [envelope(1, front=True, due=due)])
    wait_for_due(ours, 1)
    producer.publish(envelopes(1))
    requeue_ahead(ours, 2)
    producer.publish(envelopes(2, start=5))
    wait_for_due(ours, 2)
    assert numbers_of(ours.reserve(["hipri"], 9)) == [5, 6, 1, 0]


def test_a_requeue_whose_time_has_passed_goes_behind_what_waits_at_once(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(4))
    ours.requeue(ours.reserve(["hipri"], 2), due=time.time() - 60)
    assert numbers_of(ours.reserve(["hipri"], 9)) == [2, 3, 0, 1]


def test_crashes_are_counted_across_requeues_delays_and_owners(
    producer: Transport, ours: Transport, theirs: Transport
) -> None:
    producer.publish(envelopes(2))
    fatal, harmless = ours.reserve(["hipri"], 2)
    ours.requeue([fatal], crashed=True)
    ours.requeue([harmless])
    again = {delivery.raw: delivery for delivery in theirs.reserve(["hipri"], 2)}
    assert (again[fatal.raw].crashes, again[harmless.raw].crashes) == (1, 0)
    theirs.requeue([again[fatal.raw]], crashed=True, due=soon())
    (third,) = wait_until(lambda: ours.reserve(["hipri"], 1), "its time has come")
    assert third.crashes == 2
    ours.requeue([third])
    assert theirs.reserve(["hipri"], 1)[0].crashes == 2


def test_a_crash_count_survives_the_death_of_the_owner(
    producer: Transport, ours: Transport, open_on: OpenTransport
) -> None:
    doomed = open_on("doomed/1", lease_s=0.05)
    producer.publish(envelopes(1))
    ours.requeue(ours.reserve(["hipri"], 1), crashed=True)
    assert doomed.reserve(["hipri"], 1)[0].crashes == 1
    wait_for_recovery(ours, 1)
    assert ours.reserve(["hipri"], 1)[0].crashes == 1


def test_an_acked_message_leaves_no_crash_count_behind(producer: Transport, ours: Transport) -> None:
    twin = envelope(1)
    producer.publish([twin])
    ours.requeue(ours.reserve(["hipri"], 1), crashed=True)
    ours.ack([Ack(delivery) for delivery in ours.reserve(["hipri"], 1)])
    producer.publish([twin])
    assert ours.reserve(["hipri"], 1)[0].crashes == 0


def test_purged_messages_take_their_crash_counts_with_them(producer: Transport, ours: Transport) -> None:
    twin = envelope(1)
    producer.publish([twin])
    ours.requeue(ours.reserve(["hipri"], 1), crashed=True)
    producer.purge(["hipri"])
    producer.publish([twin])
    assert ours.reserve(["hipri"], 1)[0].crashes == 0


def test_a_rejected_message_keeps_its_original_bytes(producer: Transport, ours: Transport) -> None:
    before = time.time()
    producer.publish([Envelope("hipri", raw, priority=3) for raw in STRANGE.values()])
    deliveries = ours.reserve(["hipri"], len(STRANGE))
    details = {"error": 'line one\nline "two"', "nested": {"ünï": [1, None]}}
    settled = ours.reject([Rejection(delivery, "undecodable", details) for delivery in deliveries])
    assert (settled.done, list(settled.lost)) == (len(STRANGE), [])
    letters = producer.dead_letters()
    assert sorted(letter.raw for letter in letters) == sorted(STRANGE.values())
    for letter in letters:
        assert (letter.queue, letter.reason, letter.details) == ("hipri", "undecodable", details)
        assert before - 1 <= letter.died_at <= time.time() + 1


def test_a_dead_letter_says_how_often_it_crashed(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    ours.requeue(ours.reserve(["hipri"], 1), crashed=True)
    ours.reject([Rejection(delivery, "crashed") for delivery in ours.reserve(["hipri"], 1)])
    assert producer.dead_letters()[0].crashes == 1


def test_dead_letters_are_listed_newest_first_up_to_the_limit(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(4))
    for delivery in ours.reserve(["hipri"], 4):
        ours.reject([Rejection(delivery, "unknown_task")])
        time.sleep(0.002)  # times of death are kept in milliseconds
    assert numbers_of(producer.dead_letters(limit=3)) == [3, 2, 1]
    assert len({letter.token for letter in producer.dead_letters()}) == 4
    assert producer.dead_letters(limit=0) == []


def test_a_repeated_reject_makes_one_dead_letter(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    rejections = [Rejection(delivery, "unknown_task") for delivery in ours.reserve(["hipri"], 1)]
    ours.reject(rejections)
    assert list(ours.reject(rejections).lost) == [rejections[0].delivery.tag]
    assert [place for place, _ in broker.places()] == ["dead"]


def test_details_that_are_no_json_do_not_stop_a_reject(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    details = {"error": ValueError("bad"), "path": object}
    assert ours.reject([Rejection(delivery, "failed", details) for delivery in ours.reserve(["hipri"], 1)]).done == 1


def test_recall_finds_what_a_lost_reply_has_taken(producer: Transport, open_on: OpenTransport) -> None:
    producer.publish(envelopes(4))
    before = open_on("worker/1")
    known = before.reserve(["hipri"], 1)
    before.reserve(["hipri"], 2)  # the reply is lost, so nobody knows what came
    before.connect()
    found = before.recall({delivery.tag for delivery in known})
    assert numbers_of(found) == [1, 2]
    assert before.ack([Ack(delivery) for delivery in [*known, *found]]).done == 3
    assert before.recall(()) == []


def test_recall_says_queue_crashes_and_bytes(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(1, "with:colon", priority=9), Envelope("odd", b"no json")])
    ours.requeue(ours.reserve(["with:colon"], 1), crashed=True)
    taken = ours.reserve(["with:colon", "odd"], 2)
    recalled = {delivery.tag: delivery for delivery in ours.recall(())}
    assert len(recalled) == 2
    for delivery in taken:
        again = recalled[delivery.tag]
        assert (again.queue, again.crashes, again.raw) == (delivery.queue, delivery.crashes, delivery.raw)


def test_recall_is_silent_about_other_owners(producer: Transport, ours: Transport, theirs: Transport) -> None:
    producer.publish(envelopes(1))
    theirs.reserve(["hipri"], 1)
    assert ours.recall(()) == []


def test_a_large_batch_is_settled_in_one_call(producer: Transport, ours: Transport) -> None:
    count = 2500
    producer.publish(envelopes(count))
    taken = [d for _ in range(3) for d in ours.reserve(["hipri"], 1000)]
    assert numbers_of(taken) == list(range(count))
    assert ours.requeue(taken).done == count
    taken = [d for _ in range(3) for d in ours.reserve(["hipri"], 1000)]
    assert numbers_of(taken) == list(range(count))
    assert ours.extend(taken).done == count
    assert ours.ack([Ack(delivery) for delivery in taken]).done == count
