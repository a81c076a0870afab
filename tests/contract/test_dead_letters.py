"""The dead-letter store: what is put back or deleted, and what is not."""

from __future__ import annotations

import select

import pytest

from qworker.transports import DeadLetter, Envelope, Rejection, Transport

from support.brokers import Broker
from support.messages import STRANGE, envelope, envelopes, numbers_of


def bury(transport: Transport, *queues: str) -> list[DeadLetter]:
    """Reject all that waits; the dead letters in the order in which their messages were taken."""
    taken = transport.reserve(queues or ("hipri",), 1000)
    # Details that a server's own JSON parser refuses, and that look like the end of a record.
    details = {"error": '\ud800", "list": "x"}', "nested": [[{"deep": None}]]}
    assert transport.reject([Rejection(delivery, "crashed", details) for delivery in taken]).done == len(taken)
    letters = {letter.raw: letter for letter in transport.dead_letters(limit=len(taken) + 1)}
    return [letters[delivery.raw] for delivery in taken]


@pytest.mark.parametrize("name", STRANGE)
def test_the_very_bytes_come_back_to_their_queue(name: str, broker: Broker, ours: Transport) -> None:
    ours.publish([Envelope('odd "name"\\, "list": "', STRANGE[name], 3)])
    (letter,) = bury(ours, 'odd "name"\\, "list": "')
    assert ours.requeue_dead([letter.token]) == 1
    assert broker.places() == [("ready", STRANGE[name])]
    assert ours.dead_letters() == []
    (delivery,) = ours.reserve(['odd "name"\\, "list": "'], 9)
    assert delivery.raw == STRANGE[name]


def test_they_come_back_behind_what_waits_in_the_order_of_the_tokens(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(3))
    first, second, third = bury(ours)
    producer.publish(envelopes(2, start=5))
    assert producer.requeue_dead([second.token, third.token, first.token]) == 3
    assert numbers_of(ours.reserve(["hipri"], 9)) == [5, 6, 1, 2, 0]


def test_they_come_back_with_their_priority(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(0, priority=9), envelope(1, priority=3), envelope(2, "other")])
    assert producer.requeue_dead([letter.token for letter in bury(ours, "hipri", "other")]) == 3
    producer.publish([envelope(3, priority=6)])
    assert numbers_of(ours.reserve(["hipri"], 9)) == [1, 3, 0]
    assert numbers_of(ours.reserve(["other"], 9)) == [2]


def test_crashes_count_from_nothing_again(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    for _ in range(2):
        ours.requeue(ours.reserve(["hipri"], 1), crashed=True)
    (letter,) = bury(ours)
    assert letter.crashes == 2
    producer.requeue_dead([letter.token])
    (delivery,) = ours.reserve(["hipri"], 1)
    assert delivery.crashes == 0
    ours.requeue([delivery], crashed=True)
    assert ours.reserve(["hipri"], 1)[0].crashes == 1


def test_a_message_may_die_and_come_back_again_and_again(broker: Broker, ours: Transport) -> None:
    ours.publish(envelopes(1))
    tokens = []
    for _ in range(3):
        (letter,) = bury(ours)
        tokens.append(letter.token)
        assert ours.requeue_dead([letter.token]) == 1
    assert [place for place, _ in broker.places()] == ["ready"]


def test_tokens_that_name_nothing_are_skipped(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(3))
    letters = bury(ours)
    (held, waiting) = (envelope(7), envelope(8))
    producer.publish([held, waiting])
    (delivery,) = ours.reserve(["hipri"], 1)
    strangers = ["nonsense", "", "0", "-1", "9" * 30, "\u0663", "1.0", delivery.tag, delivery.tag.partition(".")[0]]
    assert producer.requeue_dead(strangers) == producer.purge_dead(strangers) == 0
    assert producer.requeue_dead([]) == producer.purge_dead([]) == 0
    assert producer.requeue_dead(["nonsense", letters[0].token, letters[0].token]) == 1
    assert producer.requeue_dead([letters[0].token]) == 0
    assert sorted(broker.places()) == sorted(
        [
            ("ready", letters[0].raw),
            ("dead", letters[1].raw),
            ("dead", letters[2].raw),
            ("inflight", held.raw),
            ("ready", waiting.raw),
        ]
    )


def test_purge_deletes_what_is_named_and_nothing_else(broker: Broker, producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(4))
    letters = bury(ours)
    producer.publish([waiting := envelope(9)])
    named = [letters[1].token, "nonsense", letters[3].token, letters[1].token]
    assert producer.purge_dead(named) == 2
    assert producer.purge_dead(named) == 0
    assert sorted(broker.places()) == sorted(
        [("dead", letters[0].raw), ("dead", letters[2].raw), ("ready", waiting.raw)]
    )


def test_large_numbers_of_letters_go_in_one_call(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1000))
    tokens = [letter.token for letter in bury(ours)]
    assert producer.requeue_dead(tokens) == 1000
    assert numbers_of(ours.reserve(["hipri"], 1000)) == list(range(1000))
    ours.publish(envelopes(1000))
    assert producer.purge_dead([letter.token for letter in bury(ours)]) == 1000
    assert producer.dead_letters() == []


def test_large_letters_go_in_one_call_too(producer: Transport, ours: Transport) -> None:
    raws = [bytes([65 + number]) * 9_000_000 for number in range(4)]
    producer.publish([Envelope("hipri", raw) for raw in raws])
    tokens = []
    while letters := bury(ours):
        tokens += [letter.token for letter in letters]
    assert producer.requeue_dead(tokens) == 4
    assert producer.depths(["hipri"]) == {"hipri": 4}


def test_a_requeued_letter_wakes_an_idle_worker(producer: Transport, ours: Transport) -> None:
    producer.publish(envelopes(1))
    (letter,) = bury(ours)
    assert ours.reserve(["hipri"], 1, arm=True) == []
    producer.requeue_dead([letter.token])
    if (fd := ours.wake_fd()) is not None:
        assert select.select([fd], [], [], 30.0)[0]
        ours.drain_wake()
    assert numbers_of(ours.reserve(["hipri"], 1, arm=True)) == [0]
