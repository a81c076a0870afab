"""Entries of vanished Celery workers: restored when stale, by kombu's rules, without a loss where kombu loses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
import redis

from qworker.transports import Ack

from support.messages import envelope, envelopes, numbers_of, raw_message
from support.waiting import wait_until

Open = Callable[..., Any]


@pytest.fixture
def channel(redis_url: str) -> Iterator[Any]:
    """A kombu consumer that takes messages and then shows no sign of life."""
    options = {"visibility_timeout": 3600}
    with kombu.Connection(redis_url, transport_options=options) as connection, connection.channel() as channel:
        yield channel
        channel.qos._delivered.clear()  # it must not restore them when it closes


def take(channel: Any, queue: str, count: int) -> list[Any]:
    """Receive without an ack."""
    consumer = kombu.Queue(queue, channel=channel, no_declare=True)
    found = [consumer.get(no_ack=False) for _ in range(count)]
    assert None not in found
    return found


def age(behind: redis.Redis, seconds: float) -> None:
    """Let all entries in flight be so much older."""
    for tag in behind.zrange("unacked_index", 0, -1):
        behind.zincrby("unacked_index", -seconds, tag)


def entry(behind: redis.Redis, tag: str, raw: bytes, *, old_s: float = 7200.0) -> None:
    """An entry with these very bytes."""
    behind.hset("unacked", tag, raw)
    behind.zadd("unacked_index", {tag: time.time() - old_s})


def see(transport: Any) -> None:
    """Let it see what stands there, and then let ten thousand seconds pass in which nothing changes."""
    while transport.maintain().more:
        pass
    transport._stale._look_at = 0
    call, key = transport._session.call, transport._names.prefix + "qworker:foreign"
    for note in call(("ZRANGE", key, 0, -1))[0]:
        call(("ZINCRBY", key, -10_000_000, note))


def restored(transport: Any) -> int:
    see(transport)
    return int(transport.maintain().recovered)


def test_what_a_vanished_celery_worker_held_comes_back_to_the_front_in_order(
    channel: Any, open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    published = [*envelopes(4), envelope(9, priority=6)]
    ours.publish(published)
    take(channel, "hipri", 3)
    age(behind, 3601)
    assert restored(ours) == 3
    assert (behind.hlen("unacked"), behind.zcard("unacked_index"), behind.exists("unacked_mutex")) == (0, 0, 0)
    taken = ours.reserve(["hipri"], 9)
    assert sorted(numbers_of(taken)[:3]) == [0, 1, 2]
    assert numbers_of(taken)[3:] == [3, 9]
    assert sorted(delivery.raw for delivery in taken) == sorted(envelope.raw for envelope in published)


def test_an_entry_younger_than_the_visibility_timeout_is_left_alone(
    channel: Any, open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    ours.publish(envelopes(1))
    (message,) = take(channel, "hipri", 1)
    age(behind, 3500)
    assert restored(ours) == 0
    assert behind.hexists("unacked", message.delivery_tag)


def test_the_visibility_timeout_can_be_set(channel: Any, open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1", visibility_timeout=60)
    ours.publish(envelopes(1))
    take(channel, "hipri", 1)
    age(behind, 61)
    assert restored(ours) == 1


def test_our_own_entries_are_never_touched(channel: Any, open_redis: Open, behind: redis.Redis) -> None:
    """A worker whose lease is longer than the visibility timeout renews less often than that."""
    slow, ours = open_redis("slow/1", lease_s=9000), open_redis("w/1", visibility_timeout=60)
    ours.publish(envelopes(1200))
    held = [delivery for _ in range(2) for delivery in slow.reserve(["hipri"], 550)]
    take(channel, "hipri", 3)
    age(behind, 600)
    total = 0
    see(ours)
    did = ours.maintain()
    while did.more:
        total, did = total + did.recovered, ours.maintain()
    assert total + did.recovered == 3
    assert slow.ack([Ack(delivery) for delivery in held]).done == 1100


def test_a_large_pile_comes_back_page_by_page_and_in_order(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    for number in range(1300):
        raw = raw_message(number, "hipri")
        entry(behind, f"tag-{number}", b"[" + raw + b', "", "hipri"]', old_s=9000 - number)
    total, calls = 0, 0
    see(ours)
    did = ours.maintain()
    while did.more:
        total, calls, did = total + did.recovered, calls + 1, ours.maintain()
    assert total + did.recovered == 1300
    assert calls >= 2
    assert numbers_of(d for _ in range(2) for d in ours.reserve(["hipri"], 1000)) == list(range(1300))


def test_large_entries_are_read_a_few_at_a_time(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    for number in range(5):
        raw = json.dumps({"body": "x" * 9_000_000, "n": number}).encode()
        entry(behind, f"tag-{number}", b"[" + raw + b', "", "hipri"]')
    counts = []
    see(ours)
    did = ours.maintain()
    while did.more:
        counts.append(did.recovered)
        did = ours.maintain()
    counts.append(did.recovered)
    assert sum(counts) == 5
    assert max(counts) == 1
    assert ours.depths(["hipri"]) == {"hipri": 5}


@pytest.mark.parametrize(
    ("kind", "binding", "routing_key"),
    [("direct", "orders", "orders"), ("topic", "shop.*.new", "shop.orders.new"), ("topic", "shop.#", "shop.a.b")],
)
def test_a_named_exchange_leads_to_the_queues_that_are_bound_to_it(
    kind: str, binding: str, routing_key: str, channel: Any, open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    exchange = kombu.Exchange("trade", kind)
    queues = [kombu.Queue("q1", exchange, routing_key=binding), kombu.Queue("other", exchange, routing_key="nothing")]
    for queue in queues:
        queue(channel).declare()
    kombu.Producer(channel).publish({"n": 1}, exchange=exchange, routing_key=routing_key, priority=4)
    take(channel, "q1", 1)
    age(behind, 3601)
    assert restored(ours) == 1
    assert behind.llen("q1\x06\x163") == 1
    assert ours.depths(["q1", "other"]) == {"q1": 1, "other": 0}


def test_what_leads_nowhere_is_kept_as_a_dead_letter(
    channel: Any, open_redis: Open, behind: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    ours = open_redis("w/1")
    exchange = kombu.Exchange("trade", "direct")
    kombu.Queue("q1", exchange, routing_key="orders")(channel).declare()
    kombu.Producer(channel).publish({"n": 1}, exchange=exchange, routing_key="orders", priority=3)
    raw = behind.lindex("q1\x06\x163", 0)
    take(channel, "q1", 1)
    behind.delete("_kombu.binding.trade")
    age(behind, 3601)
    assert restored(ours) == 0
    (letter,) = ours.dead_letters()
    assert (letter.reason, letter.queue, letter.raw) == ("unroutable", "orders", raw)
    assert "1 messages of a vanished Celery worker lead to no queue" in caplog.text
    assert letter.details == {"exchange": "trade", "routing_key": "orders"}
    assert behind.hlen("unacked") == behind.zcard("unacked_index") == 0
    assert ours.requeue_dead([letter.token]) == 1
    assert behind.llen("orders\x06\x163") == 1


STRANGE = {
    "empty": b"",
    "no json": b"hello",
    "no list": b'{"a": 1}',
    "cut off": b'[{"body": "x"}, "", "hip',
    "too short": b'[{"body": "x"}, ""]',
    "numbers": b'[{"body": "x"}, 5, 6]',
    "not utf-8": b'[{"body": "x"}, "", "\xff\xfe"]',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", STRANGE)
def test_an_entry_that_nobody_can_read_is_kept_as_a_dead_letter(
    name: str, open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    entry(behind, "some-tag", STRANGE[name])
    entry(behind, "another-tag", b"[" + raw_message(1, "hipri") + b', "", "hipri"]')
    assert restored(ours) == 1
    (letter,) = ours.dead_letters()
    assert (letter.reason, letter.raw) == ("undecodable_entry", STRANGE[name])
    assert ours.requeue_dead([letter.token]) == 0
    assert behind.hlen("unacked") == behind.zcard("unacked_index") == 0


@pytest.mark.parametrize(
    "raw",
    [
        b' [ {"body" : "\xc3\xa9 \xff", "properties": {"priority": "6"}} , "" , "hipri" ] ',
        b'[{"properties": {"priority": 1e400}}, null, "hipri"]',
        b'["text", "", "hipri"]',
        b'[null,"","hipri"]',
    ],
)
def test_bytes_are_cut_out_of_the_entry_as_they_are(raw: bytes, open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    entry(behind, "some-tag", raw)
    assert restored(ours) == 1
    (delivery,) = ours.reserve(["hipri"], 9)
    assert delivery.raw in raw
    assert delivery.raw.strip() == delivery.raw
    assert len(delivery.raw) > len(raw) - 25


def test_a_tag_without_an_entry_is_forgotten(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    behind.zadd("unacked_index", {"some-tag": 5})
    assert restored(ours) == 0
    assert behind.zcard("unacked_index") == 0


def test_while_a_celery_worker_restores_nobody_else_does(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    entry(behind, "some-tag", b"[" + raw_message(1, "hipri") + b', "", "hipri"]')
    behind.set("unacked_mutex", "kombu's token")
    assert restored(ours) == 0
    assert behind.get("unacked_mutex") == b"kombu's token"
    assert behind.hexists("unacked", "some-tag")


def test_what_changes_between_reading_and_moving_stays(
    open_redis: Open, behind: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = open_redis("w/1")
    for tag in ("received again", "acked", "untouched"):
        entry(behind, tag, b"[" + raw_message(1, "hipri") + b', "", "hipri"]')
    stale: Any = ours._stale
    move = stale._move

    def meanwhile(entries: Any) -> Any:
        behind.zadd("unacked_index", {"received again": time.time()})
        behind.zrem("unacked_index", "acked")
        behind.hdel("unacked", "acked")
        return move(entries)

    monkeypatch.setattr(stale, "_move", meanwhile)
    assert restored(ours) == 1
    assert behind.hkeys("unacked") == [b"received again"]
    assert ours.depths(["hipri"]) == {"hipri": 1}


def test_two_workers_restore_each_entry_once(open_redis: Open, behind: redis.Redis) -> None:
    first, second = open_redis("w/1"), open_redis("w/2")
    for number in range(40):
        entry(behind, f"tag-{number}", b"[" + raw_message(number, "hipri") + b', "", "hipri"]')
    total = 0

    def all_back() -> bool:
        nonlocal total
        total += restored(first) + restored(second)
        return behind.hlen("unacked") == 0

    wait_until(all_back, "everything is restored")
    assert total == 40
    assert sorted(numbers_of(first.reserve(["hipri"], 99))) == list(range(40))


def test_looking_is_done_every_ten_seconds(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    entry(behind, "first", b"[" + raw_message(1, "hipri") + b', "", "hipri"]')
    assert restored(ours) == 1
    entry(behind, "second", b"[" + raw_message(1, "hipri") + b', "", "hipri"]')
    look_at = ours._stale._look_at
    see(ours)
    ours._stale._look_at = look_at
    assert ours.maintain().recovered == 0
    ours._stale._look_at -= 10
    assert ours.maintain().recovered == 1


def test_renamed_keys_are_those_that_are_looked_at(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1", global_keyprefix="P:", unacked_key="u", unacked_index_key="i", unacked_mutex_key="m")
    behind.hset("P:u", "tag", b"[" + raw_message(1, "hipri") + b', "", "hipri"]')
    behind.zadd("P:i", {"tag": 5})
    behind.set("P:m", "somebody")
    assert restored(ours) == 0
    behind.delete("P:m")
    ours._stale._look_at = 0
    assert ours.maintain().recovered == 1
    assert behind.llen("P:hipri") == 1


def test_a_celery_worker_whose_clock_is_an_hour_behind_keeps_what_it_holds(
    channel: Any, open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    ours.publish(envelopes(2))
    take(channel, "hipri", 2)
    age(behind, 3700)
    for _ in range(3):
        ours._stale._look_at = 0
        assert ours.maintain().recovered == 0
    assert behind.hlen("unacked") == 2


def test_what_was_given_back_and_received_again_meanwhile_is_a_new_entry(open_redis: Open, behind: redis.Redis) -> None:
    """Kombu keeps the tag of a message for ever."""
    ours = open_redis("w/1")
    for score in (8000, 7500):
        entry(behind, "some-tag", b"[" + raw_message(1, "hipri") + b', "", "hipri"]', old_s=score)
        if score == 8000:
            see(ours)
    ours.maintain()
    assert behind.hexists("unacked", "some-tag")
    ours._stale._look_at = 0
    assert ours.maintain().recovered == 0
    assert restored(ours) == 1


def test_notes_on_entries_that_are_gone_go_as_well(channel: Any, open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    for number in range(1300):
        entry(behind, f"tag-{number}", b"", old_s=100)
    ours.maintain()
    assert behind.zcard("qworker:foreign") == 1300
    behind.delete("unacked", "unacked_index")
    wait_until(lambda: ours.maintain() and behind.zcard("qworker:foreign") == 0, "they are gone")


FORMS = ["{s}.1-1000000000001:0:15:hipri", "a.1-1:0:15:hipri", "{s}.1-1000000000001:0:3:hipri"]


@pytest.mark.parametrize("form", FORMS)
def test_a_tag_that_looks_like_ours_and_is_not_keeps_its_message_where_it_is(
    form: str, open_redis: Open, behind: redis.Redis
) -> None:
    """A producer chooses the tag: with our rules for it, a running message would be given away, or cut in the wrong
    place."""
    ours = open_redis("w/1")
    raw = raw_message(1, "hipri")
    entry(behind, form.format(s="0123456789abcdef0"), b"[" + raw + b',"", "hipri"]', old_s=100)
    for _ in range(3):
        assert ours.maintain().recovered == 0
    assert behind.hlen("unacked") == 1
    age(behind, 7200)
    assert restored(ours) == 1
    assert [delivery.raw for delivery in ours.reserve(["hipri"], 9)] == [raw]
