"""Leases: what an owner holds stays its own while it renews, and is given back when it has stopped."""

from __future__ import annotations

import time

from qworker.transports import Ack, Envelope, Transport

from support.brokers import Broker, OpenTransport, wait_for_recovery
from support.messages import STRANGE, envelope, envelopes, numbers_of
from support.waiting import wait_until


def test_a_dead_owner_s_messages_come_back_to_the_front_in_their_order(
    producer: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    doomed = open_on("doomed/1", lease_s=0.05)
    producer.publish([*envelopes(4), envelope(20, "other"), envelope(30, priority=9)])
    doomed.reserve(["hipri"], 3)
    doomed.reserve(["other"], 1)
    wait_for_recovery(ours, 4)
    assert numbers_of(ours.reserve(["hipri"], 9)) == [0, 1, 2, 3, 30]
    assert numbers_of(ours.reserve(["other"], 9)) == [20]


def test_what_was_taken_one_by_one_is_recalled_and_comes_back_in_that_order(
    producer: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    doomed = open_on("doomed/1", lease_s=0.05)
    for number in range(3):  # the queue is empty each time
        producer.publish([envelope(number)])
        doomed.reserve(["hipri"], 1)
    assert numbers_of(doomed.recall(())) == [0, 1, 2]
    wait_for_recovery(ours, 3)
    assert numbers_of(ours.reserve(["hipri"], 9)) == [0, 1, 2]


def test_recovered_bytes_are_untouched(producer: Transport, open_on: OpenTransport, ours: Transport) -> None:
    doomed = open_on("doomed/1", lease_s=0.05)
    producer.publish([Envelope("hipri", raw) for raw in STRANGE.values()])
    assert len(doomed.reserve(["hipri"], 100)) == len(STRANGE)
    wait_for_recovery(ours, len(STRANGE))
    assert [delivery.raw for delivery in ours.reserve(["hipri"], 100)] == list(STRANGE.values())


def test_an_owner_that_renews_keeps_what_it_holds(producer: Transport, open_on: OpenTransport, ours: Transport) -> None:
    living = open_on("living/1", lease_s=3.0)  # in memory, nobody notices that this process stood still for so long
    producer.publish(envelopes(2))
    taken = living.reserve(["hipri"], 2)
    end = time.monotonic() + 3.6
    while time.monotonic() < end:
        assert list(living.extend(taken).lost) == []
        assert ours.maintain().recovered == 0
        time.sleep(0.02)
    assert living.ack([Ack(delivery) for delivery in taken]).done == 2


def test_extend_names_what_was_lost(producer: Transport, open_on: OpenTransport, ours: Transport) -> None:
    slow = open_on("slow/1", lease_s=0.05)
    producer.publish(envelopes(2))
    taken = slow.reserve(["hipri"], 2)
    wait_for_recovery(ours, 2)
    settled = slow.extend(taken)
    assert (settled.done, sorted(settled.lost)) == (0, sorted(delivery.tag for delivery in taken))


def test_an_owner_without_anything_in_hand_may_renew(producer: Transport, ours: Transport) -> None:
    assert ours.extend([]).done == 0


def test_an_owner_does_not_take_from_itself_after_a_pause(producer: Transport, open_on: OpenTransport) -> None:
    paused = open_on("paused/1", lease_s=0.05)
    producer.publish(envelopes(1))
    taken = paused.reserve(["hipri"], 1)
    time.sleep(0.1)  # its lease has ended, and nobody else was there to see it
    assert paused.maintain().recovered == 0
    assert list(paused.extend(taken).lost) == []


def test_the_lease_time_out_of_the_options_wins(producer: Transport, open_on: OpenTransport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    doomed = (
        open_on("doomed/1", lease_s=0.05)
        if "Memory" in type(ours).__name__
        else open_on("doomed/1", lease_timeout=0.05)
    )
    doomed.reserve(["hipri"], 1)
    wait_for_recovery(ours, 1)


def test_two_workers_recover_each_message_once(
    producer: Transport, open_on: OpenTransport, ours: Transport, theirs: Transport
) -> None:
    doomed = open_on("doomed/1", lease_s=0.05)
    producer.publish(envelopes(50))
    doomed.reserve(["hipri"], 50)
    recovered = 0

    def all_back() -> bool:
        nonlocal recovered
        recovered += ours.maintain().recovered + theirs.maintain().recovered
        return recovered >= 50

    wait_until(all_back, "50 messages are recovered")
    assert recovered == 50
    assert numbers_of(ours.reserve(["hipri"], 99)) == list(range(50))


def test_more_than_a_batch_comes_back_in_order(producer: Transport, open_on: OpenTransport, ours: Transport) -> None:
    doomed = open_on("doomed/1", lease_s=0.3)
    producer.publish(envelopes(1200))
    assert sum(len(doomed.reserve(["hipri"], 400)) for _ in range(3)) == 1200
    wait_for_recovery(ours, 1200)
    assert numbers_of(d for _ in range(2) for d in ours.reserve(["hipri"], 1000)) == list(range(1200))


def test_an_owner_that_leaves_with_empty_hands_leaves_nothing(
    broker: Broker, producer: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    leaving = open_on("leaving/1", lease_s=0.3)
    producer.publish(envelopes(1))
    leaving.ack([Ack(delivery) for delivery in leaving.reserve(["hipri"], 1)])
    leaving.close()
    leaving.close()
    assert broker.places() == []


def test_what_an_owner_holds_when_it_leaves_comes_back_after_its_lease(
    producer: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    leaving = open_on("leaving/1", lease_s=0.3)
    producer.publish(envelopes(1))
    leaving.reserve(["hipri"], 1)
    leaving.close()
    assert ours.reserve(["hipri"], 1) == []
    wait_for_recovery(ours, 1)
    assert numbers_of(ours.reserve(["hipri"], 1)) == [0]


def test_reserving_renews_the_lease(producer: Transport, open_on: OpenTransport, ours: Transport) -> None:
    slow = open_on("slow/1", lease_s=30.0)
    producer.publish(envelopes(1))
    time.sleep(0.3)  # the lease grows older: what is looked for is that it is young again
    before = time.monotonic()
    assert len(slow.reserve(["hipri"], 1)) == 1
    look_again_s = ours.maintain().look_again_s
    assert look_again_s is not None
    assert look_again_s > 30.0 - (time.monotonic() - before) - 0.1


def test_maintain_says_when_the_next_lease_ends(open_on: OpenTransport, ours: Transport) -> None:
    assert ours.maintain().look_again_s is None
    before = time.monotonic()
    open_on("doomed/1", lease_s=20)
    open_on("other/1", lease_s=40)
    look_again_s = ours.maintain().look_again_s
    assert look_again_s is not None
    assert 20 - (time.monotonic() - before) - 0.1 < look_again_s < 20.01


def test_whoever_looks_when_maintain_says_finds_the_dead_at_once(
    producer: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    producer.publish(envelopes(1))
    doomed = open_on("doomed/1", lease_s=2.0)
    ours.maintain()
    doomed.reserve(["hipri"], 1)
    look_again_s = ours.maintain().look_again_s
    assert look_again_s is not None
    ours.extend([])
    time.sleep(look_again_s / 2)
    ours.extend([])  # a sign of life: otherwise this were an outage, which would be nobody's death
    time.sleep(look_again_s / 2 + 0.001)
    did = ours.maintain()
    if not did.recovered:  # too late to be no silence, on a slow machine
        assert did.look_again_s is not None
        time.sleep(did.look_again_s + 0.001)
        did = ours.maintain()
    assert did.recovered == 1
