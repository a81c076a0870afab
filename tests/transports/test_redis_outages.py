"""Leases while Redis is away: an outage makes nobody dead, a dead worker is still found after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker.core.errors import TransportError
from qworker.transports import Ack, Transport

from support import RedisServer
from support.brokers import wait_for_recovery
from support.messages import envelopes, numbers_of
from support.stopwatch import Stopwatch
from support.waiting import wait_until

Open = Callable[..., Any]

LEASE_S = 1.0
#: Where half a lease must not pass between two lines, however busy the machine is.
LONG_LEASE_S = 3.0


@pytest.fixture
def durable() -> Iterator[RedisServer]:
    """A server that has everything again after a restart."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


def restarts(server: RedisServer) -> None:
    server.stop()
    time.sleep(LONG_LEASE_S * 1.1)
    server.start()


def freezes(server: RedisServer) -> None:
    server.freeze()
    time.sleep(LONG_LEASE_S * 1.1)
    server.thaw()


@pytest.fixture(params=[restarts, freezes])
def outage(request: pytest.FixtureRequest, durable: RedisServer) -> Callable[[], None]:
    """An outage that is longer than the lease."""
    return lambda: request.param(durable)


def keep_alive(*living: Transport, seconds: float) -> int:
    """Renew and look for the dead as workers do; return how many messages were recovered."""
    recovered = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for transport in living:
            transport.extend([])
            recovered += transport.maintain().recovered
        time.sleep(LEASE_S / 20)
    return recovered


def keep_alive_until_recovered(living: Transport) -> None:
    """Renew and look for the dead until the one message of theirs is recovered."""

    def recovered() -> int:
        living.extend([])
        return living.maintain().recovered

    assert wait_until(recovered, "the dead one's message is recovered") == 1


def age_everything(behind: Any, seconds: float) -> None:
    """As if all signs of life were so much older."""
    behind.decrby("qworker:renewed", int(seconds * 1000))
    for owner in behind.zrange("qworker:leases", 0, -1):
        behind.zincrby("qworker:leases", -seconds * 1000, owner)
    for tag in behind.zrange("unacked_index", 0, -1):
        behind.zincrby("unacked_index", -int(seconds), tag)


def test_an_outage_that_outlasts_the_lease_takes_nothing_from_the_living(
    durable: RedisServer, open_redis: Open, outage: Callable[[], None]
) -> None:
    first, second = (open_redis(owner, url=durable.url, lease_s=LONG_LEASE_S) for owner in ("first/1", "second/1"))
    first.publish(envelopes(4))
    held = second.reserve(["hipri"], 3)
    outage()
    first.connect()
    assert keep_alive(first, seconds=0.1) == 0  # the second one is still waiting for its next attempt
    second.connect()
    assert list(second.extend(held).lost) == []
    assert keep_alive(first, second, seconds=LONG_LEASE_S * 0.6) == 0  # it was excused for half a lease
    assert second.ack([Ack(delivery) for delivery in held]).done == 3
    assert numbers_of(first.reserve(["hipri"], 9)) == [3]


def test_who_asks_first_after_a_freeze_without_renewing_recovers_nothing(
    durable: RedisServer, open_redis: Open
) -> None:
    """The command of a connection that has timed out meanwhile is carried out when the server goes on."""
    first, second = (open_redis(owner, url=durable.url, lease_s=LONG_LEASE_S) for owner in ("first/1", "second/1"))
    first.publish(envelopes(1))
    held = second.reserve(["hipri"], 1)
    freezes(durable)
    assert first.maintain().recovered == 0
    assert list(second.extend(held).lost) == []


def test_who_died_in_the_outage_is_recovered_soon_after_it(
    durable: RedisServer, open_redis: Open, outage: Callable[[], None]
) -> None:
    ours, doomed = (open_redis(owner, url=durable.url, lease_s=LONG_LEASE_S) for owner in ("ours/1", "doomed/1"))
    ours.publish(envelopes(3))
    doomed.reserve(["hipri"], 2)
    outage()
    before, watch = time.monotonic(), Stopwatch()
    ours.connect()
    wait_for_recovery(ours, 2)
    assert time.monotonic() - before > LONG_LEASE_S * 0.4
    assert watch.s < LONG_LEASE_S * 0.5 + 4
    assert numbers_of(ours.reserve(["hipri"], 9)) == [0, 1, 2]


def test_a_worker_that_was_alone_and_killed_is_recovered_by_its_successor(open_redis: Open) -> None:
    doomed = open_redis("doomed/1", lease_s=LEASE_S)
    doomed.publish(envelopes(1))
    doomed.reserve(["hipri"], 1)
    time.sleep(LEASE_S * 1.2)
    successor = open_redis("successor/1", lease_s=LEASE_S)
    wait_for_recovery(successor, 1)


def test_while_one_lives_a_dead_one_is_recovered_when_its_lease_ends(open_redis: Open) -> None:
    ours, doomed = (open_redis(owner, lease_s=LEASE_S) for owner in ("ours/1", "doomed/1"))
    ours.publish(envelopes(1))
    doomed.reserve(["hipri"], 1)
    assert keep_alive(ours, seconds=LEASE_S * 0.5) == 0
    keep_alive_until_recovered(ours)


def test_whoever_comes_first_after_an_outage_takes_nothing_from_a_worker_with_a_shorter_lease(
    open_redis: Open, behind: Any
) -> None:
    """The outage as seen from the keys: everything is older."""
    patient, brisk = open_redis("patient/1", lease_s=600.0), open_redis("brisk/1", lease_s=10.0)
    patient.publish(envelopes(1))
    held = brisk.reserve(["hipri"], 1)
    patient.maintain()
    age_everything(behind, 30.0)
    for _ in range(2):
        assert patient.maintain().recovered == 0
    brisk.connect()
    assert list(brisk.extend(held).lost) == []
    assert brisk.ack([Ack(delivery) for delivery in held]).done == 1


def test_a_short_silence_does_not_excuse_a_worker_with_a_long_lease(open_redis: Open, behind: Any) -> None:
    brisk, doomed = open_redis("brisk/1", lease_s=LEASE_S), open_redis("doomed/1", lease_s=600.0)
    brisk.publish(envelopes(1))
    doomed.reserve(["hipri"], 1)
    assert keep_alive(brisk, seconds=0.3) == 0
    behind.zadd("qworker:leases", {"doomed/1": int(time.time() * 1000) + 800})
    time.sleep(LEASE_S)
    keep_alive_until_recovered(brisk)


def test_silences_are_forgotten_when_they_matter_no_more(open_redis: Open, behind: Any) -> None:
    brisk = open_redis("brisk/1", lease_s=LEASE_S)
    for _ in range(12):  # each matters for twice its length
        time.sleep(LEASE_S * 0.3)
        brisk.maintain()
    assert 1 <= behind.zcard("qworker:silences") <= 8


@pytest.mark.parametrize("lost", ["qworker:leases", "qworker:sessions"])
def test_what_an_owner_without_a_record_holds_is_recovered(open_redis: Open, behind: Any, lost: str) -> None:
    ours, doomed = (open_redis(owner, lease_s=LEASE_S) for owner in ("ours/1", "doomed/1"))
    ours.publish(envelopes(1))
    doomed.reserve(["hipri"], 1)
    behind.delete(lost)
    keep_alive_until_recovered(ours)
    assert behind.keys("qworker:held:*") == []


def test_a_server_clock_that_was_set_back_takes_nothing_and_keeps_nothing_for_ever(
    open_redis: Open, behind: Any
) -> None:
    """Seen from the keys: their moments lie ahead."""
    ours, doomed = (open_redis(owner, lease_s=LONG_LEASE_S) for owner in ("ours/1", "doomed/1"))
    ours.publish(envelopes(1))
    doomed.reserve(["hipri"], 1)
    hour_ms = 3_600_000
    behind.incrby("qworker:renewed", hour_ms)
    for owner in ("ours/1", "doomed/1"):
        behind.zincrby("qworker:leases", hour_ms, owner)
    assert keep_alive(ours, seconds=LONG_LEASE_S * 0.15) == 0
    keep_alive_until_recovered(ours)


def test_a_producer_finds_a_restarted_server_by_itself(durable: RedisServer, open_redis: Open) -> None:
    producer = open_redis(url=durable.url)
    producer.publish(envelopes(1))
    durable.stop()
    with pytest.raises(TransportError):
        producer.publish(envelopes(1))
    durable.start()
    producer.publish(envelopes(1, start=1))
    assert numbers_of(open_redis("w/1", url=durable.url).reserve(["hipri"], 9)) == [0, 1]


def test_who_renews_hears_the_servers_time_of_day(open_redis: Open) -> None:
    ours = open_redis("w/1")
    before = time.time()
    now = ours.extend([]).now
    assert before - 0.1 <= now <= time.time() + 0.1
