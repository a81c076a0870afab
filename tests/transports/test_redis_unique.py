"""What delayed and unique messages leave behind in Redis: nothing, once they have gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import redis

from qworker.transports import Ack, Envelope, Transport, make_seal

from support.brokers import soon, wait_for_due
from support.messages import envelope
from support.waiting import wait_until

Open = Callable[..., Transport]

FAR = 4_000_000_000.0


def unique(task_id: str, lasts_s: float | None = None) -> Envelope:
    plain = envelope()
    raw = plain.raw.replace(b'"retries": 0', b'"retries": 0, "unique": "%s"' % make_seal(task_id, lasts_s).encode())
    return replace(plain, raw=raw, task_id=task_id, unique=True)


def test_the_record_of_delayed_twins_ends_with_the_last_of_them(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    near, far = replace(envelope(due=soon(3.0)), task_id="a"), replace(envelope(due=FAR), task_id="a")
    ours.publish([far, near, far])
    assert behind.hgetall("qworker:delayed:twins") == {b"a": b"3 2"}
    wait_for_due(ours, 1)
    assert behind.hgetall("qworker:delayed:twins") == {b"a": b"3 1"}
    assert ours.discard_delayed(["a"]) == ["a"]
    assert behind.exists("qworker:delayed:twins", "qworker:delayed", "qworker:delayed:data") == 0


def test_without_locks_there_are_no_keys_of_locks(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    ours.publish([unique("a"), unique("b")])
    assert (behind.hlen("qworker:unique"), behind.zcard("qworker:unique:ends")) == (2, 2)
    ours.ack([Ack(delivery) for delivery in ours.reserve(["hipri"], 2)])
    assert behind.exists("qworker:unique", "qworker:unique:ends") == 0


def test_locks_whose_time_is_over_are_swept_by_the_next_ack(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    ours.publish([unique(f"t{n}", 0.05) for n in range(20)])
    behind.delete("hipri")  # as a Celery worker takes them
    ours.publish([envelope(), envelope()])
    first, second = ours.reserve(["hipri"], 2)
    wait_until(lambda: not ours.publish([unique("t0", 0.05)]), "the locks have ended")
    ours.ack([Ack(first)])
    wait_until(lambda: behind.zcard("qworker:unique:ends") <= 1, "they are swept")
    ours.ack([Ack(second)])


def test_a_prefix_stands_before_the_keys_of_locks(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1", global_keyprefix="shop:")
    ours.publish([unique("a")])
    assert len(ours.publish([unique("a")])) == 1
    assert behind.exists("shop:qworker:unique") == 1
    assert open_redis("w/2").publish([unique("a")]) == []
