"""Messages in flight whose records got lost: an eviction policy, an operator or a partial restore took some of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from qworker.transports import Ack, Delivery, Envelope, Transport

from support.brokers import wait_for_recovery
from support.messages import STRANGE, envelope, envelopes, numbers_of

Open = Callable[..., Any]

LEASE_S = 0.3
RECORDS = ["qworker:leases", "qworker:sessions", "qworker:owners"]


def age(behind: redis.Redis, seconds: float, *tags: str) -> None:
    """As if these entries had not been renewed for so long."""
    behind.zadd("unacked_index", {tag: int(time.time() - seconds) for tag in tags})


def look_for_the_dead(ours: Transport, seconds: float) -> int:
    recovered, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        recovered += ours.maintain().recovered
        time.sleep(0.02)
    return recovered


def tags_of(deliveries: list[Delivery]) -> list[str]:
    return [delivery.tag for delivery in deliveries]


def test_what_a_dead_owner_without_records_held_comes_back_in_order(open_redis: Open, behind: redis.Redis) -> None:
    ours, doomed = open_redis("ours/1", lease_s=LEASE_S), open_redis("doomed/1", lease_s=LEASE_S)
    ours.publish(envelopes(5))
    doomed.reserve(["hipri"], 4)
    behind.delete(*RECORDS)
    wait_for_recovery(ours, 4)
    assert numbers_of(ours.reserve(["hipri"], 9)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("lost", [RECORDS[:2], RECORDS[1:], RECORDS[::2]], ids=" and ".join)
def test_an_owner_that_lost_two_records_is_recovered_with_its_marks_and_leaves_nothing(
    lost: list[str], open_redis: Open, behind: redis.Redis
) -> None:
    ours, doomed = open_redis("ours/1", lease_s=LEASE_S), open_redis("doomed/1", lease_s=LEASE_S)
    ours.publish(envelopes(2))
    taken = doomed.reserve(["hipri"], 2)
    doomed.mark_started(taken[:1])
    behind.delete(*lost)
    wait_for_recovery(ours, 2)
    ours.maintain()
    assert [key for key in behind.keys("*") if b"doomed" in key] == []
    assert [delivery.crashes for delivery in ours.reserve(["hipri"], 9)] == [1, 0]
    assert behind.smembers("qworker:owners") <= {b"ours/1"}


def test_what_stands_in_no_held_set_comes_back_whatever_its_bytes(open_redis: Open, behind: redis.Redis) -> None:
    ours, doomed = open_redis("ours/1", lease_s=LEASE_S), open_redis("doomed/1", lease_s=LEASE_S)
    ours.publish([Envelope("hipri", raw) for raw in STRANGE.values()])
    assert len(doomed.reserve(["hipri"], 100)) == len(STRANGE)
    behind.delete("qworker:held:doomed/1")
    wait_for_recovery(ours, len(STRANGE))
    assert {delivery.raw for delivery in ours.reserve(["hipri"], 100)} == set(STRANGE.values())
    assert behind.zcard("unacked_index") == len(STRANGE)


def test_more_strays_than_one_call_moves_come_back_in_order(open_redis: Open, behind: redis.Redis) -> None:
    ours, doomed = open_redis("ours/1", lease_s=LEASE_S), open_redis("doomed/1", lease_s=LEASE_S)
    ours.publish(envelopes(1300))
    held = [delivery for _ in range(2) for delivery in doomed.reserve(["hipri"], 650)]
    age(behind, 20, *tags_of(held[:400]))
    age(behind, 10, *tags_of(held[400:]))
    behind.delete("qworker:held:doomed/1", *RECORDS)
    wait_for_recovery(ours, 1300)
    assert numbers_of(d for _ in range(2) for d in ours.reserve(["hipri"], 1000)) == list(range(1300))


def test_strays_among_many_entries_of_celery_workers_are_found(open_redis: Open, behind: redis.Redis) -> None:
    ours, doomed = open_redis("ours/1", lease_s=LEASE_S), open_redis("doomed/1", lease_s=LEASE_S)
    ours.publish(envelopes(2))
    held = doomed.reserve(["hipri"], 2)
    theirs = {f"d3b07384-d9a0-4c9b-8f3e-{number:012}": int(time.time()) - 600 for number in range(2600)}
    behind.zadd("unacked_index", theirs)
    behind.hset("unacked", mapping=dict.fromkeys(theirs, '[{}, "", "hipri"]'))
    age(behind, 300, held[0].tag)
    age(behind, 900, held[1].tag)
    behind.delete("qworker:held:doomed/1", *RECORDS)
    wait_for_recovery(ours, 2)
    assert behind.hlen("unacked") == len(theirs)


def test_a_living_owner_with_a_long_lease_keeps_everything_when_its_records_are_lost(
    open_redis: Open, behind: redis.Redis
) -> None:
    """It renews every twenty minutes; the one that looks for the dead would have been dead long ago."""
    ours, slow = open_redis("ours/1", lease_s=LEASE_S), open_redis("slow/1", lease_s=3600)
    ours.publish(envelopes(4))
    before = slow.reserve(["hipri"], 2)
    slow.connect()
    held = [*before, *slow.reserve(["hipri"], 2)]
    age(behind, 1200, *tags_of(held))
    for lost in (RECORDS[:1], RECORDS[1:2], RECORDS[2:], RECORDS[:2], RECORDS):
        behind.delete(*lost)
        assert look_for_the_dead(ours, 0.3) == 0
    assert slow.ack([Ack(delivery) for delivery in held]).done == 4


def test_a_living_owner_with_a_long_lease_keeps_everything_when_all_about_it_is_lost(
    open_redis: Open, behind: redis.Redis
) -> None:
    ours, slow = open_redis("ours/1", lease_s=LEASE_S), open_redis("slow/1", lease_s=300)
    ours.publish([*envelopes(2), Envelope("hipri", b"odd")])
    held = slow.reserve(["hipri"], 3)
    age(behind, 100, *tags_of(held))
    behind.delete("qworker:held:slow/1", "qworker:shortest", "qworker:renewed", "qworker:silences", *RECORDS)
    assert look_for_the_dead(ours, 0.5) == 0
    assert list(slow.extend(held).lost) == []
    assert slow.ack([Ack(delivery) for delivery in held]).done == 3


def test_what_an_owner_took_before_a_reconnect_is_no_stray(open_redis: Open, behind: redis.Redis) -> None:
    ours, living = open_redis("ours/1", lease_s=LEASE_S), open_redis("living/1", lease_s=LEASE_S)
    ours.publish(envelopes(2))
    held = living.reserve(["hipri"], 2)
    living.connect()
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        assert list(living.extend(held).lost) == []
        age(behind, 60, *tags_of(held))  # even if nobody had renewed them: it holds them and lives
        assert ours.maintain().recovered == 0
        time.sleep(0.02)


def test_a_lost_held_set_is_made_anew_by_the_next_renewal(open_redis: Open, behind: redis.Redis) -> None:
    ours, theirs = open_redis("ours/1"), open_redis("theirs/1")
    ours.publish(envelopes(4))
    held = ours.reserve(["hipri"], 2)
    others = theirs.reserve(["hipri"], 1)
    behind.delete("qworker:held:ours/1")
    more = ours.reserve(["hipri"], 1)
    assert list(ours.extend([*held, *more, *others]).lost) == [others[0].tag]
    assert ours.ack([Ack(delivery) for delivery in (*held, *more)]).done == 3
    assert theirs.ack([Ack(others[0])]).done == 1


def test_a_lost_index_is_made_anew_by_the_next_renewal(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("ours/1")
    ours.publish([*envelopes(2), Envelope("hipri", b"odd")])
    held = ours.reserve(["hipri"], 3)
    behind.delete("unacked_index")
    assert list(ours.extend(held).lost) == []
    assert {tag.decode() for tag in behind.zrange("unacked_index", 0, -1)} == set(tags_of(held))


def test_a_late_settlement_of_a_recovered_stray_does_nothing(open_redis: Open, behind: redis.Redis) -> None:
    ours, slow = open_redis("ours/1", lease_s=LEASE_S), open_redis("slow/1", lease_s=LEASE_S)
    ours.publish(envelopes(2))
    first, second = slow.reserve(["hipri"], 2)
    behind.delete(*RECORDS)  # but not what it holds
    wait_for_recovery(ours, 2)
    assert list(slow.ack([Ack(first, [envelope(9, "next")])]).lost) == [first.tag]
    assert list(slow.requeue([second]).lost) == [second.tag]
    assert ours.depths(["hipri", "next"]) == {"hipri": 2, "next": 0}
