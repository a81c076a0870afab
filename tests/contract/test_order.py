"""Order between queues and between priorities: strict where it says so, in shares where it says so, nobody starved."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from qworker.core.errors import ConfigError
from qworker.transports import Ack, Transport, open_transport

from support.brokers import OpenTransport
from support.messages import envelopes, numbers_of

#: A claim's size: one message, some, many; the shares are the same.
SIZES = [1, 3, 100]


def taken(worker: Transport, queues: list[str], *, size: int, total: int) -> Counter[tuple[str, int]]:
    """Take `total` messages in claims of `size`; count them by queue and priority (which `fill` made the number)."""
    found: Counter[tuple[str, int]] = Counter()
    while sum(found.values()) < total:
        deliveries = worker.reserve(queues, min(size, total - sum(found.values())))
        assert deliveries, "nothing may be left waiting while the window has room"
        found.update((d.queue, number) for d, number in zip(deliveries, numbers_of(deliveries), strict=True))
        worker.ack([Ack(d) for d in deliveries])
    return found


def fill(producer: Transport, **depths: int | dict[int, int]) -> None:
    """So many messages on each queue, or on each of its priorities; the number of each is its priority."""
    for queue, depth in depths.items():
        for priority, count in (depth if isinstance(depth, dict) else {0: depth}).items():
            batch = [e for _ in range(count) for e in envelopes(1, queue, start=priority, priority=priority)]
            producer.publish(batch)


def queues_of(counted: Counter[tuple[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (queue, _), count in counted.items():
        found[queue] += count
    return dict(found)


@pytest.mark.parametrize("size", SIZES)
def test_round_robin_gives_every_queue_the_same(size: int, producer: Transport, open_on: OpenTransport) -> None:
    fill(producer, a=300, b=300, c=300)
    found = queues_of(taken(open_on("w/1"), ["a", "b", "empty", "c"], size=size, total=300))
    assert all(98 <= found[name] <= 102 for name in "abc"), found


@pytest.mark.parametrize("size", SIZES)
def test_weights_are_kept_in_messages_whatever_the_size_of_a_claim(
    size: int, producer: Transport, open_on: OpenTransport
) -> None:
    fill(producer, hipri=500, default=500, low=500)
    worker = open_on("w/1", queue_weights={"hipri": 5, "low": 0.5})
    found = queues_of(taken(worker, ["low", "default", "hipri", "empty"], size=size, total=325))
    assert abs(found["hipri"] - 250) <= 6, found
    assert abs(found["default"] - 50) <= 4, found
    assert abs(found["low"] - 25) <= 4, found


@pytest.mark.parametrize("size", SIZES)
def test_a_strict_order_leaves_the_others_one_message_in_ten(
    size: int, producer: Transport, open_on: OpenTransport
) -> None:
    fill(producer, a=400, b=400, c=400)
    worker = open_on("w/1", queue_order_strategy="priority")
    found = queues_of(taken(worker, ["b", "empty", "c", "a"], size=size, total=400))
    assert abs(found["b"] - 360) <= 3, found
    assert abs(found["a"] - 20) <= 3, found
    assert abs(found["c"] - 20) <= 3, found


@pytest.mark.parametrize("size", SIZES)
def test_low_priorities_are_not_starved(size: int, producer: Transport, open_on: OpenTransport) -> None:
    fill(producer, a={0: 300, 9: 300}, b={0: 300})
    found = taken(open_on("w/1"), ["a", "b"], size=size, total=400)
    assert abs(found["a", 9] - 40) <= 3, found
    assert abs(found["a", 0] - found["b", 0]) <= 3, found


@pytest.mark.parametrize("size", SIZES)
def test_the_share_of_the_others_can_be_set(size: int, producer: Transport, open_on: OpenTransport) -> None:
    fill(producer, a=300, b=300)
    worker = open_on("w/1", queue_order_strategy="sorted", starvation_share=0.25)
    found = queues_of(taken(worker, ["b", "a"], size=size, total=200))
    assert abs(found["b"] - 50) <= 3, found


@pytest.mark.parametrize("size", SIZES)
def test_without_a_share_the_order_is_strict(size: int, producer: Transport, open_on: OpenTransport) -> None:
    fill(producer, a={0: 150, 9: 10}, b={0: 100})
    worker = open_on("w/1", queue_order_strategy="sorted", starvation_share=0)
    assert taken(worker, ["b", "a"], size=size, total=200) == {("a", 0): 150, ("b", 0): 50}


def test_what_is_owed_to_the_others_is_not_saved_up_while_they_have_nothing(
    producer: Transport, open_on: OpenTransport
) -> None:
    worker = open_on("w/1", queue_order_strategy="sorted")
    fill(producer, a=400)
    taken(worker, ["a", "b"], size=7, total=300)
    fill(producer, b=100)
    assert queues_of(taken(worker, ["a", "b"], size=7, total=49)).get("b", 0) <= 6


def test_who_got_much_while_others_had_nothing_owes_nothing(producer: Transport, open_on: OpenTransport) -> None:
    worker = open_on("w/1")
    fill(producer, a=400)
    taken(worker, ["a", "b"], size=10, total=300)
    fill(producer, b=100)
    found = queues_of(taken(worker, ["a", "b"], size=10, total=60))
    assert 25 <= found["a"] <= 35, found


def test_within_a_claim_the_more_urgent_is_delivered_first(producer: Transport, ours: Transport) -> None:
    fill(producer, a={9: 50, 0: 50})
    numbers = numbers_of(ours.reserve(["a"], 40))
    assert 9 in numbers, "the low priority has its share"
    assert numbers == sorted(numbers)


def test_the_window_is_filled_from_wherever_something_waits(producer: Transport, ours: Transport) -> None:
    fill(producer, a={0: 3, 3: 5}, b={6: 40}, c={9: 7})
    assert len(ours.reserve(["a", "b", "c", "empty"], 50)) == 50
    assert len(ours.reserve(["a", "b", "c", "empty"], 50)) == 5


def test_weights_of_queues_that_are_not_consumed_are_told(
    producer: Transport, open_on: OpenTransport, caplog: pytest.LogCaptureFixture
) -> None:
    fill(producer, hipri=2)
    worker = open_on("w/1", queue_weights={"hipir": 5})
    with caplog.at_level(logging.WARNING, "qworker.transports"):
        assert len([*worker.reserve(["hipri", "low"], 1), *worker.reserve(["hipri", "low"], 1)]) == 2
    (record,) = [r for r in caplog.records if r.name == "qworker.transports" and r.levelno == logging.WARNING]
    assert "did you mean 'hipri'" in record.getMessage()


@pytest.mark.parametrize("url", ["redis://localhost", "sqlite:///x.db"])
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"queue_weights": {"a": 0}}, "above 0"),
        ({"queue_weights": {"a": True}}, "above 0"),
        ({"queue_weights": ["a"]}, "must be a dict"),
        ({"queue_weights": {1: 1}}, "must be a dict"),
        ({"queue_weights": {"a": 2}, "queue_order_strategy": "sorted"}, "use 'weighted'"),
        ({"starvation_share": 0.6}, "from 0"),
        ({"starvation_share": "much"}, "from 0"),
        ({"queue_order_strategy": "weigthed"}, "weighted"),
        ({"queue_wieghts": {}}, "queue_weights"),
    ],
)
def test_a_wrong_option_is_refused(url: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        open_transport(url, options=options)
