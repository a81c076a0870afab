"""No call lasts longer than its time-out, whatever the network does; and what it left behind is found again."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker.core.errors import ResultStoreError, TransportError
from qworker.results import ResultStore, StoredResult, open_result_store
from qworker.transports import Ack, Delivery, Envelope, Rejection, Transport, open_transport

from support import RedisServer
from support.impatience import impatient
from support.messages import envelope, envelopes
from support.proxy import Proxy
from support.stopwatch import took_s

Open = Callable[..., Any]

TIMEOUT_S = 0.6
#: What the machine may be busy with meanwhile; less than another time-out.
SLACK_S = 0.55


def black_hole(proxy: Proxy) -> None:
    proxy.is_black_hole = True


def lost_replies(proxy: Proxy) -> None:
    proxy.swallows_replies = True


def trickle(proxy: Proxy) -> None:
    proxy.trickles = True


def half_a_reply_then_nothing(proxy: Proxy) -> None:
    proxy.truncate(1, holds=True)


def half_a_reply_then_the_end(proxy: Proxy) -> None:
    proxy.truncate(1)


def half_a_reply_then_a_reset(proxy: Proxy) -> None:
    proxy.truncate(1, resets=True)


def cut(proxy: Proxy) -> None:
    proxy.cut()


def reset(proxy: Proxy) -> None:
    proxy.reset()


FAULTS = (
    black_hole,
    lost_replies,
    half_a_reply_then_nothing,
    half_a_reply_then_the_end,
    half_a_reply_then_a_reset,
    cut,
    reset,
)

VERBS: dict[str, Callable[[Transport, list[Delivery]], object]] = {
    "publish": lambda ours, held: ours.publish([envelope(9, "other"), envelope(10, "other", due=time.time() + 600)]),
    "reserve": lambda ours, held: ours.reserve(["hipri"], 5, arm=True),
    "extend": lambda ours, held: ours.extend(held),
    "ack": lambda ours, held: ours.ack([Ack(delivery) for delivery in held]),
    "requeue": lambda ours, held: ours.requeue(held),
    "reject": lambda ours, held: ours.reject([Rejection(delivery, "test") for delivery in held]),
    "recall": lambda ours, held: ours.recall(()),
    "maintain": lambda ours, held: ours.maintain(),
    "depths": lambda ours, held: ours.depths(["hipri", "other"]),
    "purge": lambda ours, held: ours.purge(["other"]),
    "dead_letters": lambda ours, held: ours.dead_letters(),
    "warnings": lambda ours, held: ours.warnings(),
}


@pytest.fixture
def ours(open_redis: Open, proxy: Proxy) -> Transport:
    transport: Transport = open_redis("w/1", url=proxy.url)
    # The delayed one is due before all others, so that nothing is said about those to the connection that wakes us.
    transport.publish([*envelopes(8), envelope(8, "other", due=time.time() + 300)])
    assert select.select([transport.wake_fd()], [], [], 20)[0]
    transport.drain_wake()
    transport.reserve(["empty"], 1)  # the server knows the script now
    return transport


def fails(action: Callable[[], object]) -> None:
    with pytest.raises((TransportError, ResultStoreError)):
        action()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_fails_within_its_time_out(
    ours: Transport, proxy: Proxy, verb: str, fault: Callable[[Proxy], None]
) -> None:
    held = ours.reserve(["hipri"], 3)
    VERBS[verb](ours, [])  # the server knows the script now
    fault(proxy)
    with impatient(ours, TIMEOUT_S):
        assert took_s(lambda: fails(lambda: VERBS[verb](ours, held))) < TIMEOUT_S + SLACK_S
        assert took_s(lambda: fails(lambda: VERBS[verb](ours, held))) < TIMEOUT_S  # the connection has been given up


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_and_nothing_doubled_by_a_broken_reserve(
    ours: Transport, proxy: Proxy, fault: Callable[[Proxy], None]
) -> None:
    fault(proxy)
    with impatient(ours, TIMEOUT_S):
        fails(lambda: ours.reserve(["hipri"], 5))
    proxy.is_black_hole = proxy.swallows_replies = False
    ours.connect()
    recalled = ours.recall(())
    taken = ours.reserve(["hipri"], 99)
    found = [delivery.raw for delivery in (*recalled, *taken)]
    assert len(found) == len(set(found)) == 8


@pytest.mark.parametrize("fault", [black_hole, lost_replies])
def test_connecting_fails_within_its_time_out(ours: Transport, proxy: Proxy, fault: Callable[[Proxy], None]) -> None:
    fault(proxy)
    with impatient(ours, TIMEOUT_S):
        assert took_s(lambda: fails(ours.connect)) < TIMEOUT_S + SLACK_S


@pytest.mark.parametrize("at", [1, 5, 8, 300])
def test_connecting_to_a_server_that_falls_silent_half_way_fails_within_its_time_out(
    ours: Transport, proxy: Proxy, at: int
) -> None:
    proxy.truncate(at, holds=True)
    with impatient(ours, TIMEOUT_S):
        assert took_s(lambda: fails(ours.connect)) < TIMEOUT_S + SLACK_S


def test_a_reply_that_trickles_in_has_one_time_out_for_all_of_it(ours: Transport, proxy: Proxy) -> None:
    trickle(proxy)
    with impatient(ours, TIMEOUT_S):
        assert took_s(lambda: fails(lambda: ours.reserve(["hipri"], 5))) < TIMEOUT_S + SLACK_S


def test_several_replies_have_one_time_out_together(ours: Transport, proxy: Proxy) -> None:
    """Each reply of a pipeline would come in time."""
    trickle(proxy)
    queues = [f"q{number}" for number in range(20)]
    with impatient(ours, TIMEOUT_S):
        assert took_s(lambda: fails(lambda: ours.depths(queues))) < TIMEOUT_S + SLACK_S


def test_a_slow_but_steady_connection_may_take_its_time_for_a_large_message(
    open_redis: Open, redis_server: RedisServer
) -> None:
    """8 MiB in pieces that together take longer than the time-out."""
    with Proxy(redis_server.port) as proxy:
        ours = open_redis("w/1", url=proxy.url, socket_timeout=30.0)
        raw = b"x" * (8 << 20)
        ours.publish([Envelope("hipri", raw)])
        proxy.latency_s = 0.02  # for each 64 KiB
        before = time.monotonic()
        with impatient(ours, 2.0):
            assert ours.reserve(["hipri"], 1)[0].raw == raw
        assert time.monotonic() - before > 2.0


def test_an_address_that_does_not_answer_costs_the_time_out_for_connecting() -> None:
    """Addresses for documentation lead nowhere; where even that is refused at once, it is refused."""
    transport = open_transport("redis://192.0.2.1:6379/0", options={"socket_connect_timeout": TIMEOUT_S}, owner="w/1")
    assert took_s(lambda: fails(transport.connect)) < TIMEOUT_S + SLACK_S


# ---- the result store: it may connect once more, because its calls bear repetition ----


@pytest.fixture
def store(proxy: Proxy, redis_url: str) -> Iterator[ResultStore]:
    store = open_result_store(proxy.url, settings={})
    assert store is not None
    store.connect()
    yield store
    store.close()


@pytest.mark.parametrize("fault", [black_hole, lost_replies, half_a_reply_then_nothing])
@pytest.mark.parametrize("verb", ["store", "fetch", "wait", "forget", "connect"])
def test_a_silent_result_store_costs_its_time_out(
    store: ResultStore, proxy: Proxy, verb: str, fault: Callable[[Proxy], None]
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "store": lambda: store.store([StoredResult("a", b'{"status": "SUCCESS"}', True)]),
        "fetch": lambda: store.fetch("a"),
        "wait": lambda: store.wait("a", 30.0),
        "forget": lambda: store.forget("a"),
        "connect": store.connect,
    }
    fault(proxy)
    with impatient(store, TIMEOUT_S):
        assert took_s(lambda: fails(calls[verb])) < TIMEOUT_S + SLACK_S


@pytest.mark.parametrize("fault", [cut, reset, half_a_reply_then_the_end, half_a_reply_then_a_reset])
def test_a_result_store_that_hangs_up_is_asked_again_at_once(
    store: ResultStore, proxy: Proxy, fault: Callable[[Proxy], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qworker.results.redis_link._AT_ONCE_S", 30.0)  # on a busy machine, too
    store.store([StoredResult("a", b'{"status": "SUCCESS"}', True)])
    fault(proxy)
    assert store.fetch("a") == b'{"status": "SUCCESS"}'
