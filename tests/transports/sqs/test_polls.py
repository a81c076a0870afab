"""Receiving from SQS: what polls cost when nothing comes, how many run when much comes, and never beyond the window."""

from __future__ import annotations

import select
import threading
import time
from collections import Counter
from itertools import count
from typing import Any

import pytest

from qworker.core.errors import ConfigError, TransportError
from qworker.transports import Ack, Delivery, Transport

from support.messages import envelopes, numbers_of
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, throttled
from support.sqs_workers import OpenWorker
from support.waiting import wait_until


def fetch(worker: Transport, queues: list[str], count: int) -> list[Delivery]:
    """As the consumer thread does: ask, sleep until woken, ask again."""
    got: list[Delivery] = []

    def enough() -> bool:
        got.extend(worker.reserve(queues, count - len(got)))
        if len(got) < count and select.select([worker.wake_fd()], [], [], 0.2)[0]:
            worker.drain_wake()
        return len(got) == count

    wait_until(enough, f"{count} messages come", 30.0)
    return got


def polls_of(proxy: SqsProxy) -> Counter[str]:
    return Counter(request.asked["QueueUrl"].rpartition("/")[2] for request in proxy.of("ReceiveMessage"))


def test_an_empty_queue_costs_one_request_per_wait(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("a", "b", wait_time_seconds=2)
    began = time.monotonic()
    worker.reserve(["a", "b"], 8)

    def ended() -> list[int]:
        counted = polls_of(proxy)
        return [counted["a"], counted["b"]]

    wait_until(lambda: min(ended()) >= 2, "two polls of each have ended")
    polls = ended()
    assert max(polls) <= (time.monotonic() - began) / 2, "each has waited for its 2 s, one after the other"
    assert worker.depths(["a", "b"]) == {"a": 0, "b": 0}
    assert proxy.counts()["GetQueueAttributes"] == 2, "those of the start: an empty poll says the same"


def test_an_idle_queue_is_polled_long_and_claims_for_a_short_time(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("a", wait_time_seconds=1, claims_short=True)
    worker.publish(envelopes(1, "a"))
    assert len(fetch(worker, ["a"], 1)) == 1
    poll, *_ = proxy.of("ReceiveMessage")  # others follow when a busy machine lets the short claim end
    assert (poll.asked["WaitTimeSeconds"], poll.asked["VisibilityTimeout"]) == (1, 2)
    claim, *_ = proxy.of("ChangeMessageVisibilityBatch")
    assert claim.asked["Entries"][0]["VisibilityTimeout"] == 30


def test_a_busy_queue_is_polled_side_by_side_for_whole_leases(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("a")
    worker.publish(envelopes(100, "a"))
    together, numbers = threading.Barrier(3), count()

    def meet(asked: dict[str, Any]) -> None:
        if asked["WaitTimeSeconds"] == 0 and next(numbers) < together.parties:
            together.wait(60)

    proxy.break_("ReceiveMessage", meet, 1000)
    assert sorted(numbers_of(fetch(worker, ["a"], 100))) == list(range(100))
    assert next(numbers) > together.parties
    assert not together.broken, "the first polls of the busy queue were under way at the same time"
    polls = [request.asked for request in proxy.of("ReceiveMessage")]
    assert len(polls) <= 14
    assert sum(poll["VisibilityTimeout"] == 30 and poll["WaitTimeSeconds"] == 0 for poll in polls) >= 8


def test_never_more_is_held_than_was_asked_for(open_worker: OpenWorker, sqs: MotoServer) -> None:
    worker = open_worker("a")
    worker.publish(envelopes(40, "a"))
    got = fetch(worker, ["a"], 7)
    time.sleep(0.5)  # in which nothing more may be fetched
    assert (len(got), sqs.counts("a")) == (7, (33, 7, 0))
    worker.ack([Ack(delivery) for delivery in got[:3]])
    more = fetch(worker, ["a"], 3)
    wait_until(lambda: sum(sqs.counts("a")) == 37, "the acks have arrived")
    assert (len(more), sqs.counts("a")) == (3, (30, 7, 0))


def test_with_one_place_and_three_queues_each_is_asked_and_the_surplus_goes_back(
    open_worker: OpenWorker, sqs: MotoServer
) -> None:
    names = ["a", "b", "c"]
    worker = open_worker(*names)
    worker.reserve(names, 1)
    wait_until(lambda: worker._polls._listening == 3, "each is polled")
    for name in names:
        worker.publish(envelopes(1, name))
    (first,) = fetch(worker, names, 1)

    def others_are_back() -> bool:
        return sum(sqs.counts(name)[0] for name in names) == 2

    wait_until(others_are_back, "what was too much is visible again")
    worker.ack([Ack(first)])
    assert len(fetch(worker, names, 2)) == 2


def test_a_full_queue_does_not_starve_another_one(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("full", "thin")
    worker.publish(envelopes(60, "full"))
    worker.publish(envelopes(3, "thin"))

    def after_thin(asked: dict[str, Any]) -> None:
        """Polls of the full queue are slow from the fourth on, until the thin one's first has brought something."""
        if asked["QueueUrl"].endswith("full") and polls_of(proxy)["full"] >= 3:
            wait_until(lambda: polls_of(proxy)["thin"], "the thin queue is polled beside")

    proxy.break_("ReceiveMessage", after_thin, 1000)
    order: list[str] = []
    while order.count("thin") < 3:
        assert len(order) < 60, "the full queue has not had everything before"
        for delivery in fetch(worker, ["full", "thin"], 4):  # the long poll of an empty queue keeps no place
            order.append(delivery.queue)
            worker.ack([Ack(delivery)])


def test_a_strict_order_prefers_the_first_queue_and_starves_none(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("first", "last", queue_order_strategy="priority")
    for name in ("first", "last"):
        worker.publish(envelopes(150, name))
    polls = worker._polls

    def turn() -> tuple[str, int]:
        """One poll, if both queues are known to be busy: with five places there is one at a time, for five."""
        worker.ack([Ack(delivery) for delivery in fetch(worker, ["first", "last"], 5)])
        wait_until(lambda: not polls._under_way, "no poll is under way")
        asked = proxy.of("ReceiveMessage")[-1].asked
        return asked["QueueUrl"].rpartition("/")[2], asked["MaxNumberOfMessages"]

    while not all(lane.is_busy for lane in polls._lanes.values()):
        turn()
    while turn() != ("last", 5):
        pass
    # The last queue is owed a tenth of what the first one gets. One message is enough for a turn, which pays off five.
    assert [turn() for _ in range(9)] == [("first", 5), ("first", 5), ("last", 5)] * 3


def test_after_a_stop_nothing_is_held_and_nothing_is_polled(
    open_worker: OpenWorker, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_worker("a", wait_time_seconds=1)
    worker.publish(envelopes(10, "a"))
    worker.reserve(["a"], 10)
    wait_until(lambda: sqs.counts("a")[1] == 10, "they have been received")
    assert worker.reserve(["a"], 0) == []
    wait_until(lambda: sqs.counts("a") == (10, 0, 0), "they are back")
    polls = proxy.begun["ReceiveMessage"]
    time.sleep(1.5)  # in which nothing may be polled
    assert proxy.begun["ReceiveMessage"] == polls


@pytest.mark.parametrize("slow", ["ReceiveMessage", "ChangeMessageVisibilityBatch"])
def test_what_has_been_claimed_for_a_whole_lease_is_given_back_before_the_end_however_slow_sqs_is(
    slow: str, open_worker: OpenWorker, sqs: MotoServer, proxy: SqsProxy, leaves_calmly: None
) -> None:
    begun = threading.Event()

    def dawdle(asked: dict[str, Any]) -> None:
        begun.set()
        time.sleep(1.0)  # twice the time for which a long poll is waited for

    worker = open_worker("a")
    fetched = 0
    if slow == "ReceiveMessage":  # of a busy queue, whose polls do not wait
        worker.publish(envelopes(40, "a"))
        fetched = len(fetch(worker, ["a"], 20))
        worker.reserve(["a"], 0)
    proxy.break_(slow, dawdle)
    worker.reserve(["a"], 10)
    worker.publish(envelopes(1, "a"))
    assert begun.wait(60)
    before = proxy.counts()[slow]  # of those that have ended
    worker.close()
    wait_until(lambda: proxy.counts()[slow] > before, "the slow request has ended")
    assert sqs.counts("a")[1] == fetched, "what was handed out, and no more, is left to its claim"


def test_what_has_come_before_anybody_listened_wakes_who_begins_to_listen(open_worker: OpenWorker) -> None:
    worker = open_worker("a", wait_time_seconds=1)
    worker.reserve(["a"], 1)
    worker.publish(envelopes(1, "a"))
    polls = worker._polls
    wait_until(lambda: not polls._under_way and polls._lanes["a"].buffer, "it lies in the buffer")
    assert select.select([worker.wake_fd()], [], [], 0)[0]


def test_throttled_polls_go_on_later_and_break_nothing(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("a", wait_time_seconds=1)
    worker.publish(envelopes(3, "a"))
    proxy.break_("ReceiveMessage", throttled, 3)
    assert len(fetch(worker, ["a"], 3)) == 3


def test_a_broken_network_is_told_and_after_reconnecting_all_goes_on(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("a", wait_time_seconds=1)
    worker.publish(envelopes(3, "a"))
    held = fetch(worker, ["a"], 1)
    proxy.is_cut = True

    def is_told() -> bool:
        try:
            worker.reserve(["a"], 5)
        except TransportError:
            return True
        return False

    wait_until(is_told, "the worker hears of it")
    proxy.is_cut = False
    worker.connect()
    assert worker.extend(held).lost == []
    assert len(fetch(worker, ["a"], 2)) == 2
    assert worker.ack([Ack(delivery) for delivery in held]).done == 1


def test_what_a_lost_answer_has_taken_comes_back_by_itself(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("a", wait_time_seconds=1, claims_short=True, lease_s=600.0)
    worker.publish(envelopes(1, "a"))
    proxy.drops["ReceiveMessage"] = 1
    got: list[Delivery] = []

    def comes() -> bool:
        try:
            got.extend(worker.reserve(["a"], 1))
        except TransportError:
            worker.connect()
        return bool(got)

    wait_until(comes, "it is there again: a long poll claims for a short time")


def test_a_worker_that_may_not_receive_is_refused(open_worker: OpenWorker, proxy: SqsProxy) -> None:
    worker = open_worker("a")
    denied = {"__type": "com.amazonaws.sqs#AccessDeniedException", "message": "not authorized: sqs:ReceiveMessage"}
    proxy.break_("ReceiveMessage", lambda asked: (403, denied), 100)

    def is_told() -> bool:
        try:
            worker.reserve(["a"], 5)
        except TransportError:
            return True
        return False

    wait_until(is_told, "the worker hears of it")
    with pytest.raises(ConfigError, match="sqs:ReceiveMessage"):
        worker.connect()


def test_a_delayed_message_cannot_be_revoked_and_that_is_said(open_worker: OpenWorker) -> None:
    with pytest.raises(NotImplementedError, match="cannot be revoked"):
        open_worker("a").discard_delayed(["t1"])


def test_what_polls_under_way_bring_has_its_place_when_some_is_taken_meanwhile(
    open_worker: OpenWorker, sqs: MotoServer, proxy: SqsProxy
) -> None:
    worker = open_worker("hipri", wait_time_seconds=0)
    worker.publish(envelopes(60))
    assert len(fetch(worker, ["hipri"], 10)) == 10
    begun, release = threading.Event(), threading.Event()

    def stall(asked: dict[str, Any]) -> None:
        if asked["MaxNumberOfMessages"] == 8:
            begun.set()
            release.wait(60)

    proxy.break_("ReceiveMessage", stall, 9)
    assert worker.reserve(["hipri"], 18) == []
    assert begun.wait(60), "ten have come, and eight are under way"
    got = worker.reserve(["hipri"], 18)
    assert len(got) == 10
    release.set()
    wait_until(lambda: not worker._polls._lanes["hipri"].polls, "they have come")
    got += fetch(worker, ["hipri"], 18 - len(got))
    assert (len(got), sqs.counts("hipri")) == (18, (32, 28, 0))
    assert proxy.counts()["ChangeMessageVisibilityBatch"] <= 1, "the first long poll's claims, and nothing given back"
