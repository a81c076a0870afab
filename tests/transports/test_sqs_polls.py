"""Receiving from SQS: what polls cost when nothing comes, how many run when much comes, and never beyond the window."""

from __future__ import annotations

import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker.core.errors import ConfigError, TransportError
from qworker.transports import Ack, Delivery, Transport, open_transport

from support.messages import envelopes, numbers_of
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, throttled
from support.waiting import wait_until

OpenSqs = Callable[..., Transport]


@pytest.fixture
def proxy(sqs: MotoServer) -> Iterator[SqsProxy]:
    with SqsProxy(sqs.port) as proxy:
        yield proxy


@pytest.fixture
def open_sqs(sqs: MotoServer, proxy: SqsProxy) -> Iterator[OpenSqs]:
    """A worker's transport that consumes `queues`, which are made."""
    opened = []

    def make(*queues: str, **options: Any) -> Transport:
        for name in queues:
            sqs.queue(name)
        transport = open_transport(proxy.url, options=options, owner="w/1", queues=queues)
        transport.connect()
        opened.append(transport)
        return transport

    yield make
    for transport in opened:
        transport.close()


def fetch(worker: Transport, queues: list[str], count: int, limit_s: float = 15.0) -> list[Delivery]:
    """As the consumer thread does: ask, sleep until woken, ask again."""
    got: list[Delivery] = []
    until = time.monotonic() + limit_s
    while len(got) < count and time.monotonic() < until:
        got += worker.reserve(queues, count - len(got))
        fd = worker.wake_fd()
        assert fd is not None
        if len(got) < count and select.select([fd], [], [], 0.2)[0]:
            worker.drain_wake()
    return got


def polls_of(proxy: SqsProxy) -> Counter[str]:
    return Counter(request.asked["QueueUrl"].rpartition("/")[2] for request in proxy.of("ReceiveMessage"))


def test_an_empty_queue_costs_one_request_per_wait(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs("a", "b", wait_time_seconds=2)
    worker.reserve(["a", "b"], 8)
    time.sleep(5.0)
    counted = polls_of(proxy)  # of those that have ended
    assert counted["a"] in (1, 2)
    assert counted["b"] in (1, 2)
    assert worker.depths(["a", "b"]) == {"a": 0, "b": 0}
    assert proxy.counts()["GetQueueAttributes"] == 2, "those of the start: an empty poll says the same"


def test_an_idle_queue_is_polled_long_and_claims_for_a_short_time(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs("a", wait_time_seconds=1)
    worker.publish(envelopes(1, "a"))
    assert len(fetch(worker, ["a"], 1)) == 1
    (poll,) = proxy.of("ReceiveMessage")
    assert (poll.asked["WaitTimeSeconds"], poll.asked["VisibilityTimeout"]) == (1, 2)
    (claim,) = proxy.of("ChangeMessageVisibilityBatch")
    assert claim.asked["Entries"][0]["VisibilityTimeout"] == 30


def test_a_busy_queue_is_polled_side_by_side_for_whole_leases(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs("a")
    worker.publish(envelopes(100, "a"))
    assert sorted(numbers_of(fetch(worker, ["a"], 100))) == list(range(100))
    polls = [request.asked for request in proxy.of("ReceiveMessage")]
    assert len(polls) <= 14
    assert sum(poll["VisibilityTimeout"] == 30 and poll["WaitTimeSeconds"] == 0 for poll in polls) >= 8


def test_never_more_is_held_than_was_asked_for(open_sqs: OpenSqs, sqs: MotoServer) -> None:
    worker = open_sqs("a")
    worker.publish(envelopes(40, "a"))
    got = fetch(worker, ["a"], 7)
    time.sleep(0.5)
    assert (len(got), sqs.counts("a")) == (7, (33, 7, 0))
    worker.ack([Ack(delivery) for delivery in got[:3]])
    more = fetch(worker, ["a"], 3)
    time.sleep(0.3)
    assert (len(more), sqs.counts("a")) == (3, (30, 7, 0))


def test_with_one_place_and_three_queues_each_is_asked_and_the_surplus_goes_back(
    open_sqs: OpenSqs, sqs: MotoServer
) -> None:
    names = ["a", "b", "c"]
    worker = open_sqs(*names)
    worker.reserve(names, 1)
    time.sleep(0.3)
    for name in names:
        worker.publish(envelopes(1, name))
    (first,) = fetch(worker, names, 1)

    def others_are_back() -> bool:
        return sum(sqs.counts(name)[0] for name in names) == 2

    wait_until(others_are_back, "what was too much is visible again", 5.0)
    worker.ack([Ack(first)])
    assert len(fetch(worker, names, 2)) == 2


def test_a_full_queue_does_not_starve_another_one(open_sqs: OpenSqs) -> None:
    worker = open_sqs("full", "thin")
    worker.publish(envelopes(60, "full"))
    worker.publish(envelopes(3, "thin"))
    order = []
    while len(order) < 30:
        batch = fetch(worker, ["full", "thin"], 4, 5.0)
        assert len(batch) == 4, "the long poll of an empty queue keeps no place"
        for delivery in batch:
            order.append(delivery.queue)
            worker.ack([Ack(delivery)])
    assert order.count("thin") == 3


def test_a_strict_order_prefers_the_first_queue_and_starves_none(open_sqs: OpenSqs) -> None:
    worker = open_sqs("first", "last", queue_order_strategy="priority")
    worker.publish(envelopes(60, "first"))
    worker.publish(envelopes(60, "last"))
    order: Counter[str] = Counter()
    while sum(order.values()) < 60:
        for delivery in fetch(worker, ["first", "last"], 5):
            order[delivery.queue] += 1
            worker.ack([Ack(delivery)])
    assert order["first"] > order["last"] > 0, order  # about two to one; by how much depends on when answers come


def test_after_a_stop_nothing_is_held_and_nothing_is_polled(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_sqs("a", wait_time_seconds=1)
    worker.publish(envelopes(10, "a"))
    worker.reserve(["a"], 10)
    wait_until(lambda: sqs.counts("a")[1] == 10, "they have been received")
    assert worker.reserve(["a"], 0) == []
    wait_until(lambda: sqs.counts("a") == (10, 0, 0), "they are back", 5.0)
    polls = proxy.counts()["ReceiveMessage"]
    time.sleep(1.5)
    assert proxy.counts()["ReceiveMessage"] == polls


@pytest.mark.parametrize("slow", ["ReceiveMessage", "ChangeMessageVisibilityBatch"])
def test_what_has_been_claimed_for_a_whole_lease_is_given_back_before_the_end_however_slow_sqs_is(
    slow: str, open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    begun = threading.Event()

    def dawdle(asked: dict[str, Any]) -> None:
        begun.set()
        time.sleep(1.0)  # twice the time for which a long poll is waited for

    worker = open_sqs("a")
    fetched = 0
    if slow == "ReceiveMessage":  # of a busy queue, whose polls do not wait
        worker.publish(envelopes(40, "a"))
        fetched = len(fetch(worker, ["a"], 20))
        worker.reserve(["a"], 0)
    proxy.break_(slow, dawdle)
    worker.reserve(["a"], 10)
    worker.publish(envelopes(1, "a"))
    assert begun.wait(10)
    before = proxy.counts()[slow]  # of those that have ended
    worker.close()
    wait_until(lambda: proxy.counts()[slow] > before, "the slow request has ended")
    assert sqs.counts("a")[1] == fetched, "what was handed out, and no more, is left to its claim"


def test_what_has_come_before_anybody_listened_wakes_who_begins_to_listen(open_sqs: OpenSqs) -> None:
    worker = open_sqs("a", wait_time_seconds=1)
    worker.reserve(["a"], 1)
    worker.publish(envelopes(1, "a"))
    polls = worker._polls  # type: ignore[attr-defined]
    wait_until(lambda: not polls._under_way and polls._lanes["a"].buffer, "it lies in the buffer")
    assert select.select([worker.wake_fd()], [], [], 0)[0]


def test_throttled_polls_go_on_later_and_break_nothing(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs("a", wait_time_seconds=1)
    worker.publish(envelopes(3, "a"))
    proxy.break_("ReceiveMessage", throttled, 3)
    assert len(fetch(worker, ["a"], 3)) == 3


def test_a_broken_network_is_told_and_after_reconnecting_all_goes_on(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs("a", wait_time_seconds=1)
    worker.publish(envelopes(3, "a"))
    held = fetch(worker, ["a"], 1)
    proxy.is_cut = True

    def is_told() -> bool:
        try:
            worker.reserve(["a"], 5)
        except TransportError:
            return True
        return False

    wait_until(is_told, "the worker hears of it", 10.0)
    proxy.is_cut = False
    worker.connect()
    assert worker.extend(held).lost == []
    assert len(fetch(worker, ["a"], 2)) == 2
    assert worker.ack([Ack(delivery) for delivery in held]).done == 1


def test_what_a_lost_answer_has_taken_comes_back_by_itself(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs("a", wait_time_seconds=1)
    worker.publish(envelopes(1, "a"))
    proxy.drops["ReceiveMessage"] = 1
    started = time.monotonic()
    got: list[Delivery] = []
    while not got and time.monotonic() - started < 15:
        try:
            got = fetch(worker, ["a"], 1, 0.5)
        except TransportError:
            worker.connect()
    assert len(got) == 1
    assert time.monotonic() - started < 10, "a long poll claims for a short time"


def test_a_worker_that_may_not_receive_is_refused(open_sqs: OpenSqs, proxy: SqsProxy) -> None:
    worker = open_sqs("a")
    denied = {"__type": "com.amazonaws.sqs#AccessDeniedException", "message": "not authorized: sqs:ReceiveMessage"}
    proxy.break_("ReceiveMessage", lambda asked: (403, denied), 100)

    def is_told() -> bool:
        try:
            worker.reserve(["a"], 5)
        except TransportError:
            return True
        return False

    wait_until(is_told, "the worker hears of it", 10.0)
    with pytest.raises(ConfigError, match="sqs:ReceiveMessage"):
        worker.connect()


def test_a_delayed_message_cannot_be_revoked_and_that_is_said(open_sqs: OpenSqs) -> None:
    with pytest.raises(NotImplementedError, match="cannot be revoked"):
        open_sqs("a").discard_delayed(["t1"])


def test_what_polls_under_way_bring_has_its_place_when_some_is_taken_meanwhile(
    open_sqs: OpenSqs, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_sqs("hipri", wait_time_seconds=0)
    worker.publish(envelopes(60))
    assert len(fetch(worker, ["hipri"], 10)) == 10
    release = threading.Event()
    proxy.break_("ReceiveMessage", lambda asked: stall(asked, release), 9)
    got: list[Delivery] = []
    wait_until(lambda: got or got.extend(worker.reserve(["hipri"], 18)), "ten come, and eight are under way")
    release.set()
    wait_until(lambda: not worker._polls._lanes["hipri"].polls, "they have come")  # type: ignore[attr-defined]
    got += fetch(worker, ["hipri"], 18 - len(got))
    assert (len(got), sqs.counts("hipri")) == (18, (32, 28, 0))
    assert proxy.counts()["ChangeMessageVisibilityBatch"] <= 1, "the first long poll's claims, and nothing given back"


def stall(asked: dict[str, Any], release: threading.Event) -> None:
    if asked["MaxNumberOfMessages"] == 8:
        release.wait(10)
