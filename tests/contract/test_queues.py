"""Publishing and reserving: order, priorities, several queues, counting and purging."""

from __future__ import annotations

import pytest

from qworker.transports import Envelope, Transport

from support.brokers import Broker, OpenTransport
from support.messages import STRANGE, envelope, envelopes, number_of, numbers_of


def test_messages_come_out_in_the_order_in_which_they_went_in(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(5))
    producer.publish(envelopes(5, start=5))
    assert numbers_of(ours.reserve(["hipri"], 7) + ours.reserve(["hipri"], 7)) == list(range(10))


def test_a_delivery_holds_the_original_bytes_and_its_queue(producer: Transport, ours: Transport) -> None:
    sent = envelope(1)
    producer.publish([sent])
    (delivery,) = ours.reserve(["hipri"], 1)
    assert (delivery.raw, delivery.queue, delivery.crashes) == (sent.raw, "hipri", 0)


def test_no_more_than_the_limit_is_reserved(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(10))
    assert len(ours.reserve(["hipri"], 3)) == 3
    assert ours.reserve(["hipri"], 0) == []
    assert producer.depths(["hipri"]) == {"hipri": 7}


def test_an_empty_queue_gives_nothing(ours: Transport) -> None:
    assert ours.reserve(["hipri"], 10) == []
    assert ours.reserve([], 10) == []


def test_lower_priority_numbers_come_first(producer: Transport, ours: Transport) -> None:
    for number, priority in enumerate([9, 3, 0, 6, 3, 0]):
        producer.publish([envelope(number, priority=priority)])
    assert numbers_of(ours.reserve(["hipri"], 10)) == [2, 5, 1, 4, 3, 0]


def test_a_better_priority_in_another_queue_comes_first(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(1, "a", priority=6), envelope(2, "b", priority=3), envelope(3, "a", priority=0)])
    assert numbers_of(ours.reserve(["a", "b"], 10)) == [3, 2, 1]


def test_only_the_named_queues_are_looked_at(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(1, "a"), envelope(2, "b"), envelope(3, "c")])
    found = ours.reserve(["a", "c"], 10)
    assert sorted((delivery.queue, number_of(delivery.raw)) for delivery in found) == [("a", 1), ("c", 3)]
    assert producer.depths(["a", "b", "c"]) == {"a": 0, "b": 1, "c": 0}


def test_a_queue_that_is_named_twice_is_delivered_once(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(4))
    assert numbers_of(ours.reserve(["hipri", "hipri"], 10)) == [0, 1, 2, 3]


def test_a_full_queue_does_not_starve_another_one(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(100, "full"))
    producer.publish(envelopes(1, "thin"))
    taken = [delivery.queue for _ in range(2) for delivery in ours.reserve(["full", "thin"], 1)]
    assert "thin" in taken


def test_one_reserve_shares_its_limit_between_queues(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(100, "a"))
    producer.publish(envelopes(100, "b"))
    producer.publish(envelopes(2, "c"))
    taken = [delivery.queue for delivery in ours.reserve(["a", "b", "c"], 30)]
    assert len(taken) == 30
    assert taken.count("c") == 2
    assert min(taken.count("a"), taken.count("b")) >= 10


def test_an_envelope_for_the_front_is_the_next(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(2))
    producer.publish([envelope(7, front=True), envelope(2), envelope(8, front=True)])
    assert numbers_of(ours.reserve(["hipri"], 10)) == [7, 8, 0, 1, 2]


def test_two_workers_share_a_queue_without_overlap(producer: Transport, ours: Transport, theirs: Transport) -> None:
    producer.publish(envelopes(10))
    here, there = ours.reserve(["hipri"], 6), theirs.reserve(["hipri"], 6)
    assert numbers_of(here + there) == list(range(10))
    assert len({delivery.tag for delivery in here + there}) == 10


def test_depths_count_what_waits_and_nothing_else(producer: Transport, ours: Transport) -> None:
    producer.publish([*envelopes(3), envelope(9, priority=9), envelope(0, due=4_000_000_000.0)])
    ours.reserve(["hipri"], 1)
    assert producer.depths(["hipri", "empty"]) == {"hipri": 3, "empty": 0}
    assert producer.depths([]) == {}


def test_purge_deletes_what_waits_and_says_how_many(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish([*envelopes(3), envelope(9, priority=9), envelope(0, due=4_000_000_000.0), envelope(5, "other")])
    ours.reserve(["hipri"], 1)
    assert producer.purge(["hipri", "empty"]) == 3
    assert producer.purge([]) == 0
    assert sorted(place for place, _ in broker.places()) == ["delayed", "inflight", "ready"]


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_message_is_delivered_untouched(
    name: str, broker: Broker, producer: Transport, ours: Transport, theirs: Transport
) -> None:
    raw = STRANGE[name]
    producer.publish([Envelope("hipri", raw), *envelopes(1)])
    strange, ordinary = ours.reserve(["hipri"], 2)
    assert strange.raw == raw
    assert sorted(broker.places()) == sorted([("inflight", raw), ("inflight", ordinary.raw)])
    ours.requeue([strange])
    (again,) = theirs.reserve(["hipri"], 1)
    assert again.raw == raw
    assert again.tag != strange.tag


def test_the_same_bytes_twice_are_two_messages(broker: Broker, producer: Transport, ours: Transport) -> None:
    twin = envelope(1)
    producer.publish([twin, twin])
    first, second = ours.reserve(["hipri"], 2)
    assert first.tag != second.tag
    ours.requeue([second])
    assert sorted(broker.places()) == [("inflight", twin.raw), ("ready", twin.raw)]


def test_a_message_of_ten_megabytes_passes_untouched(producer: Transport, ours: Transport, theirs: Transport) -> None:
    raw = b'{"body": "' + b"x" * 10_000_000 + b'", "headers": {}, "properties": {}}'
    producer.publish([Envelope("hipri", raw), *envelopes(3)])
    (large, *others) = ours.reserve(["hipri"], 100)
    assert large.raw == raw
    ours.requeue([large])
    assert theirs.reserve(["hipri"], 1)[0].raw == raw
    assert numbers_of(others) == [0, 1, 2]


def test_one_reserve_does_not_fill_the_memory_with_large_messages(producer: Transport, open_on: OpenTransport) -> None:
    for number in range(6):
        producer.publish([Envelope("hipri", b"%d" % number + b"x" * 6_000_000)])
    reader = open_on("reader/1")
    found = reader.reserve(["hipri"], 100)
    assert 1 <= len(found) < 6
    rest = [delivery for _ in range(6) for delivery in reader.reserve(["hipri"], 100)]
    assert [delivery.raw[:1] for delivery in found + rest] == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_queue_names_may_hold_anything(producer: Transport, ours: Transport) -> None:
    names = ["with space", 'quo"te', "new\nline", "back\\slash", "ünïcode", "colon:0:5:x", 'a, "", "b']
    producer.publish([envelope(number, name) for number, name in enumerate(names)])
    taken = ours.reserve(names, 100)
    assert {delivery.queue: number_of(delivery.raw) for delivery in taken} == {n: i for i, n in enumerate(names)}
    assert ours.requeue(taken).lost == []
    assert producer.depths(names) == dict.fromkeys(names, 1)
