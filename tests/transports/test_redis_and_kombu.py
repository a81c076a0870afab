"""One Redis, two languages: queues, bindings and in-flight messages are shared with kombu in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
import redis

from qworker.transports import Ack, Envelope, Rejection

from support.messages import STRANGE, envelope, envelopes, number_of, numbers_of

Open = Callable[..., Any]


@pytest.fixture
def kombu_on(redis_url: str) -> Iterator[Callable[..., Any]]:
    """A kombu channel; keywords are its transport options. `visibility_timeout=-1` makes it restore everything."""
    connections: list[Any] = []

    def connect(**options: Any) -> Any:
        connection = kombu.Connection(redis_url, transport_options=options)
        connections.append(connection)
        return connection.channel()

    yield connect
    for connection in connections:
        connection.release()


def send(channel: Any, number: int, queue: str = "hipri", **options: Any) -> None:
    body = [[number], {}, {}]
    headers = {"task": "shop.note", "id": str(number)}
    declared = kombu.Queue(queue, channel=channel)
    declared.declare()
    kombu.Producer(channel).publish(body, routing_key=queue, headers=headers, **options)


def receive_all(channel: Any, queue: str = "hipri") -> list[Any]:
    simple = kombu.Queue(queue, channel=channel)
    messages = []
    while (message := simple.get(accept=["json"])) is not None:
        messages.append(message)
    return messages


def test_what_kombu_published_is_delivered_byte_by_byte(kombu_on: Any, open_redis: Open, behind: redis.Redis) -> None:
    channel = kombu_on()
    for number, priority in enumerate([0, 9, 4]):
        send(channel, number, priority=priority)
    lists = [b"hipri", b"hipri\x06\x163", b"hipri\x06\x169"]
    stored = [raw for name in lists for raw in behind.lrange(name, 0, -1)]
    taken = open_redis("w/1").reserve(["hipri"], 9)
    assert [delivery.raw for delivery in taken] == stored
    assert numbers_of(taken) == [0, 2, 1]


def test_kombu_receives_what_was_published_here_in_order_and_by_priority(kombu_on: Any, open_redis: Open) -> None:
    open_redis().publish([envelope(1, priority=9), envelope(2), envelope(3), envelope(4, priority=3)])
    assert [message.payload[0] for message in receive_all(kombu_on())] == [[2], [3], [4], [1]]


def test_bindings_are_those_that_kombu_makes(kombu_on: Any, open_redis: Open, behind: redis.Redis) -> None:
    names = [b"_kombu.binding.hipri", b"_kombu.binding_permanent.hipri"]
    queue = kombu.Queue("hipri", exchange=kombu.Exchange("hipri"), routing_key="hipri", channel=kombu_on())
    queue.declare()
    by_kombu = [behind.smembers(name) for name in names]
    behind.flushall()
    open_redis().publish(envelopes(1))
    assert [behind.smembers(name) for name in names] == by_kombu


def test_bindings_are_registered_once_per_connection(open_redis: Open, behind: redis.Redis) -> None:
    producer = open_redis()
    producer.publish(envelopes(1))
    behind.config_resetstat()
    producer.publish(envelopes(1))
    assert "cmdstat_sadd" not in behind.info("commandstats")


def test_a_celery_worker_restores_what_we_held(kombu_on: Any, open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    open_redis().publish([envelope(0), envelope(1, priority=3), envelope(2)])
    taken = ours.reserve(["hipri"], 9)
    kombu_on(visibility_timeout=-1).qos.restore_visible()
    assert (behind.hlen("unacked"), behind.zcard("unacked_index")) == (0, 0)
    restored = receive_all(kombu_on())
    assert sorted(message.payload[0] for message in restored) == [[0], [1], [2]]
    assert all(message.headers["redelivered"] for message in restored)
    originals = {json.loads(delivery.raw)["properties"]["delivery_tag"] for delivery in taken}
    assert {message.delivery_tag for message in restored} == originals


def test_what_a_celery_worker_has_restored_is_lost_for_us(kombu_on: Any, open_redis: Open) -> None:
    ours = open_redis("w/1")
    open_redis().publish(envelopes(4))
    taken = ours.reserve(["hipri"], 4)
    kombu_on(visibility_timeout=-1).qos.restore_visible()
    acked, requeued, rejected, extended = taken
    assert list(ours.ack([Ack(acked, [envelope(9, "next")])]).lost) == [acked.tag]
    assert list(ours.requeue([requeued]).lost) == [requeued.tag]
    assert list(ours.reject([Rejection(rejected, "unknown_task")]).lost) == [rejected.tag]
    assert list(ours.extend([extended]).lost) == [extended.tag]
    assert ours.recall(()) == []
    assert ours.depths(["hipri", "next"]) == {"hipri": 4, "next": 0}


def test_renewing_keeps_a_celery_worker_from_restoring(kombu_on: Any, open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    open_redis().publish(envelopes(1))
    (delivery,) = ours.reserve(["hipri"], 1)
    behind.zadd("unacked_index", {delivery.tag: 1.0})  # as if it were held for years
    ours.extend([delivery])
    kombu_on(visibility_timeout=3600).qos.restore_visible()
    assert ours.ack([Ack(delivery)]).done == 1


def test_a_late_ack_does_not_take_the_message_from_the_celery_worker_that_has_it_now(
    kombu_on: Any, open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    open_redis().publish(envelopes(1))
    (delivery,) = ours.reserve(["hipri"], 1)
    channel = kombu_on(visibility_timeout=-1)
    channel.qos.restore_visible()
    (message,) = receive_all(channel)
    ours.ack([Ack(delivery)])
    assert behind.hkeys("unacked") == [message.delivery_tag.encode()]


def test_two_messages_with_one_delivery_tag_do_not_overwrite_each_other(
    kombu_on: Any, open_redis: Open, behind: redis.Redis
) -> None:
    first, second = envelope(1).raw, envelope(2).raw
    tag = json.loads(first)["properties"]["delivery_tag"]
    second = second.replace(json.loads(second)["properties"]["delivery_tag"].encode(), tag.encode())
    open_redis().publish([Envelope("hipri", first), Envelope("hipri", second)])
    ours = open_redis("w/1")
    assert len(ours.reserve(["hipri"], 2)) == 2
    assert behind.hlen("unacked") == 2
    kombu_on(visibility_timeout=-1).qos.restore_visible()
    assert sorted(number_of(raw) for raw in behind.lrange("hipri", 0, -1)) == [1, 2]


KOMBU_READS = {"compact", "other key order", "trailing newline", "no delivery_tag"}


@pytest.mark.parametrize("name", STRANGE)
def test_a_celery_worker_never_meets_an_entry_that_it_cannot_restore(
    name: str, kombu_on: Any, open_redis: Open, behind: redis.Redis
) -> None:
    """Such an entry would end a Celery worker at its next scan, or be dropped by it."""
    ours = open_redis("w/1")
    ours.publish([Envelope("hipri", STRANGE[name])])
    (delivery,) = ours.reserve(["hipri"], 1)
    if name in KOMBU_READS:
        assert (behind.hlen("unacked"), behind.hlen("qworker:odd")) == (1, 0)
        kombu_on(visibility_timeout=-1).qos.restore_visible()
        assert ours.depths(["hipri"]) == {"hipri": 1}
    else:
        assert (behind.hlen("unacked"), behind.zcard("unacked_index"), behind.hlen("qworker:odd")) == (0, 1, 1)
        kombu_on(visibility_timeout=-1).qos.restore_visible()
        assert [again.raw for again in ours.recall(())] == [delivery.raw]


def test_every_key_stands_under_the_global_prefix(open_redis: Open, behind: redis.Redis) -> None:
    options = {"global_keyprefix": "shop:"}
    ours, producer = open_redis("w/1", **options), open_redis(**options)
    producer.publish([*envelopes(4), envelope(5, due=4e9), Envelope("hipri", b"odd")])
    taken = ours.reserve(["hipri"], 5)
    ours.requeue(taken[:1], crashed=True)
    ours.reject([Rejection(taken[1], "unknown_task")])
    ours.maintain()
    keys = behind.keys("*")
    assert len(keys) >= 10
    assert [key for key in keys if not key.startswith(b"shop:")] == []


def test_a_prefix_is_shared_with_kombu(kombu_on: Any, open_redis: Open) -> None:
    ours = open_redis("w/1", global_keyprefix="shop:")
    channel = kombu_on(global_keyprefix="shop:", visibility_timeout=-1)
    send(channel, 7, priority=6)
    assert numbers_of(ours.reserve(["hipri"], 1)) == [7]
    channel.qos.restore_visible()
    assert [message.payload[0] for message in receive_all(channel)] == [[7]]


def test_steps_and_separator_are_shared_with_kombu(kombu_on: Any, open_redis: Open) -> None:
    options = {"priority_steps": list(range(10)), "sep": ":"}
    ours = open_redis("w/1", **options)
    channel = kombu_on(**options)
    for number, priority in enumerate([7, 2]):
        send(channel, number, priority=priority)
    taken = ours.reserve(["hipri"], 9)
    assert numbers_of(taken) == [1, 0]
    assert [delivery.queue for delivery in ours.recall(())] == ["hipri", "hipri"]
    ours.requeue(taken)
    assert [message.payload[0] for message in receive_all(channel)] == [[1], [0]]


def test_the_unacked_keys_can_be_renamed(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1", unacked_key="held", unacked_index_key="held_index")
    ours.publish(envelopes(1))
    (delivery,) = ours.reserve(["hipri"], 1)
    assert (behind.hlen("held"), behind.zcard("held_index"), behind.exists("unacked")) == (1, 1, 0)
    assert ours.ack([Ack(delivery)]).done == 1


@pytest.mark.parametrize(
    ("strategy", "expected"), [("priority", ["b", "b", "a", "a"]), ("sorted", ["a", "a", "b", "b"])]
)
def test_queues_can_be_served_in_a_fixed_order(strategy: str, expected: list[str], open_redis: Open) -> None:
    ours = open_redis("w/1", queue_order_strategy=strategy)
    ours.publish([*envelopes(2, "a"), *envelopes(2, "b")])
    taken = [delivery.queue for _ in range(2) for delivery in ours.reserve(["b", "a"], 2)]
    assert taken == expected


def test_two_databases_of_one_server_do_not_meet(open_redis: Open, redis_url: str) -> None:
    there = open_redis("w/1", url=redis_url.removesuffix("/0") + "/5")
    open_redis().publish(envelopes(1))
    assert there.reserve(["hipri"], 1) == []
    there.publish(envelopes(1, start=5))
    assert numbers_of(there.reserve(["hipri"], 9)) == [5]
