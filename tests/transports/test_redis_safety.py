"""What only Redis can do to us: keys of the wrong type, full memory, flushed scripts, rights, late commands."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from qworker.core.errors import ConfigError, LeaseLost, TransportError
from qworker.transports import Ack, Envelope, Rejection

from support import RedisServer
from support.brokers import publish_delayed, wait_for_due, wait_for_recovery
from support.messages import envelope, envelopes, numbers_of
from support.proxy import Proxy
from support.waiting import wait_until

Open = Callable[..., Any]


def test_a_successor_for_a_key_that_is_no_list_becomes_a_dead_letter(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    behind.set("taken", "by somebody else")
    ours.publish(envelopes(1))
    (delivery,) = ours.reserve(["hipri"], 1)
    assert ours.ack([Ack(delivery, [envelope(7, "taken"), envelope(8, "next")])]).done == 1
    (letter,) = ours.dead_letters()
    assert (numbers_of([letter]), letter.reason) == ([7], "queue_unusable")
    assert "WRONGTYPE" in letter.details["error"]
    assert numbers_of(ours.reserve(["next"], 1)) == [8]


def test_a_delayed_message_for_a_key_that_is_no_list_does_not_hold_up_the_others(
    open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    publish_delayed(ours, lambda due: [envelope(1, "taken", due=due), envelope(2, due=due)])
    behind.set("taken", "by somebody else")
    wait_for_due(ours, 2)
    assert numbers_of(ours.reserve(["hipri"], 9)) == [2]
    assert numbers_of(ours.dead_letters()) == [1]


def test_what_cannot_go_back_to_its_list_becomes_a_dead_letter(open_redis: Open, behind: redis.Redis) -> None:
    ours, doomed = open_redis("w/1"), open_redis("doomed/1", lease_s=0.05)
    ours.publish(envelopes(2))
    (first,) = ours.reserve(["hipri"], 1)
    doomed.reserve(["hipri"], 1)
    behind.set("hipri", "a string now")
    assert ours.requeue([first]).done == 1
    wait_for_recovery(ours, 1)
    assert sorted(numbers_of(ours.dead_letters())) == [0, 1]


def test_a_dead_letter_that_cannot_go_back_to_its_list_stays(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    ours.publish([envelope(1), envelope(2, "next")])
    ours.reject([Rejection(delivery, "crashed") for delivery in ours.reserve(["hipri", "next"], 2)])
    behind.set("hipri", "a string now")
    assert ours.requeue_dead([letter.token for letter in ours.dead_letters()]) == 1
    assert numbers_of(ours.dead_letters()) == [1]
    behind.delete("hipri")
    assert ours.requeue_dead([letter.token for letter in ours.dead_letters()]) == 1
    assert ours.depths(["hipri", "next"]) == {"hipri": 1, "next": 1}


def test_publishing_to_a_key_that_is_no_list_is_an_error(open_redis: Open, behind: redis.Redis) -> None:
    behind.set("taken", "by somebody else")
    producer = open_redis()
    with pytest.raises(TransportError, match=r"WRONGTYPE.*another database or prefix"):
        producer.publish([envelope(1, "taken")])
    producer.publish([envelope(2)])
    assert producer.depths(["hipri"]) == {"hipri": 1}


def test_what_a_worker_publishes_for_a_key_that_is_no_list_becomes_a_dead_letter_and_is_not_sent_again(
    open_redis: Open, behind: redis.Redis
) -> None:
    behind.set("taken", "by somebody else")
    ours = open_redis("w/1")
    ours.publish([envelope(1), envelope(2, "taken"), envelope(3), envelope(5, front=True), envelope(6, front=True)])
    (letter,) = ours.dead_letters()
    assert (numbers_of([letter]), letter.reason) == ([2], "queue_unusable")
    assert numbers_of(ours.reserve(["hipri"], 9)) == [5, 6, 1, 3]


RESERVED = ["unacked", "unacked_index", "unacked_mutex", "qworker:leases", "_kombu.binding.hipri"]


@pytest.mark.parametrize("name", RESERVED)
def test_a_queue_cannot_have_the_name_of_a_key_that_the_transport_needs(name: str, open_redis: Open) -> None:
    """A list there, on an empty server, would stop every worker for good, Celery's as well."""
    with pytest.raises(ConfigError, match="cannot be a queue's name"):
        open_redis().publish([envelope(1, name)])
    ours = open_redis("w/1")
    ours.publish([envelope(1, name), envelope(2)])
    (delivery,) = ours.reserve(["hipri"], 9)
    assert ours.ack([Ack(delivery, [envelope(3, name)])]).done == 1
    assert sorted(numbers_of(ours.dead_letters())) == [1, 3]


def test_a_full_server_refuses_new_messages_and_still_drains(own_server: RedisServer, open_redis: Open) -> None:
    ours = open_redis("w/1", url=own_server.url)
    ours.publish(envelopes(20))
    held = ours.reserve(["hipri"], 10)
    with own_server.client() as behind:
        behind.config_set("maxmemory", "100kb")  # it uses more than that when it is empty
    producer = open_redis(url=own_server.url)
    with pytest.raises(TransportError, match="its memory is full"):
        producer.publish(envelopes(1))
    with pytest.raises(TransportError, match="its memory is full"):
        producer.publish([envelope(1, due=4e9)])
    held += ours.reserve(["hipri"], 10)
    assert len(held) == 20
    ours.connect()
    assert ours.extend(held).done == 20
    assert ours.ack([Ack(held[0], [envelope(99)])]).done == 1
    ours.publish([envelope(100, "another")])  # what follows a task that was acked when it began
    assert ours.depths(["another"]) == {"another": 1}
    assert ours.requeue(held[1:2]).done == 1
    assert ours.reject([Rejection(held[2], "unknown_task")]).done == 1
    assert ours.requeue_dead([letter.token for letter in ours.dead_letters()]) == 1
    assert ours.ack([Ack(delivery) for delivery in held[3:]]).done == 17
    assert ours.depths(["hipri"]) == {"hipri": 3}


@pytest.mark.parametrize("broken", ["qworker:held:w/1", "unacked_index", "unacked", "qworker:odd"])
def test_a_claim_that_fails_half_way_makes_no_second_message(
    broken: str, open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    ours.publish([Envelope("hipri", b"odd")] if broken == "qworker:odd" else envelopes(2))
    behind.set(broken, "by somebody else")
    for _ in range(2):
        with pytest.raises(TransportError, match="WRONGTYPE"):
            ours.reserve(["hipri"], 9)
    behind.delete(broken)
    ours.connect()
    ours.extend([])
    assert ours.recall([]) == []
    assert behind.keys("qworker:held:*") == []
    assert ours.ack([Ack(delivery) for delivery in ours.reserve(["hipri"], 9)]).lost == []
    assert (ours.depths(["hipri"]), behind.hlen("unacked"), behind.zcard("unacked_index")) == ({"hipri": 0}, 0, 0)


def test_a_server_whose_clock_is_set_back_lets_no_running_message_look_old_to_celery(
    open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    ours.publish(envelopes(1))
    held = ours.reserve(["hipri"], 1)
    ahead = time.time() + 7200  # by the clock as it was
    behind.zadd("unacked_index", {held[0].tag: ahead})
    assert list(ours.extend(held).lost) == []
    assert behind.zscore("unacked_index", held[0].tag) == ahead


def test_a_mark_that_comes_too_late_leaves_no_key(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    ours.publish(envelopes(3))
    held = ours.reserve(["hipri"], 3)
    ours.mark_started(held)
    ours.ack([Ack(held[0])])
    ours.requeue(held[1:2])
    ours.reject([Rejection(held[2], "crashed")])
    ours.mark_started(held)
    assert behind.keys("qworker:started:*") == []


def test_a_due_time_is_rounded_up_to_whole_milliseconds_of_the_server(open_redis: Open, behind: redis.Redis) -> None:
    producer = open_redis()
    for number in range(100):
        due = time.time() + 600 + number / 9000
        producer.publish([replace(envelope(number, due=due), task_id=f"t{number}")])
        score = behind.zscore("qworker:delayed", f"id:t{number}")
        assert score is not None
        assert int(score) >= due * 1000


def test_flushed_scripts_are_loaded_again(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    ours.publish(envelopes(2))
    for _ in range(2):
        behind.script_flush()
        (delivery,) = ours.reserve(["hipri"], 1, arm=True)
        behind.script_flush()
        assert ours.ack([Ack(delivery)]).done == 1


def test_a_connection_that_its_owner_has_given_up_takes_nothing(open_redis: Open) -> None:
    old = open_redis("w/1")
    old.publish(envelopes(1))
    new = open_redis("w/1")
    with pytest.raises(LeaseLost):
        old.reserve(["hipri"], 1)
    assert numbers_of(new.reserve(["hipri"], 1)) == [0]


def test_a_late_renewal_of_an_old_connection_does_not_silence_the_new_one(open_redis: Open) -> None:
    old = open_redis("w/1")
    old.publish(envelopes(1))
    new = open_redis("w/1")
    old.extend([])
    assert numbers_of(new.reserve(["hipri"], 1)) == [0]


def test_after_a_reconnect_the_owner_settles_what_it_took_before(open_redis: Open) -> None:
    ours = open_redis("w/1")
    ours.publish(envelopes(3))
    taken = ours.reserve(["hipri"], 2)
    ours.connect()
    assert ours.ack([Ack(delivery) for delivery in taken]).done == 2
    assert numbers_of(ours.reserve(["hipri"], 9)) == [2]


def test_messages_taken_by_two_connections_of_a_dead_owner_come_back_in_order(open_redis: Open) -> None:
    doomed = open_redis("doomed/1", lease_s=0.2)
    doomed.publish(envelopes(6))
    doomed.reserve(["hipri"], 3)
    doomed.connect()
    doomed.reserve(["hipri"], 2)
    ours = open_redis("w/1")
    wait_for_recovery(ours, 5)
    assert numbers_of(ours.reserve(["hipri"], 9)) == list(range(6))


def test_a_dead_owner_is_forgotten_with_its_last_message(open_redis: Open, behind: redis.Redis) -> None:
    doomed = open_redis("doomed/1", lease_s=0.05)
    doomed.publish(envelopes(1))
    doomed.reserve(["hipri"], 1)
    wait_for_recovery(open_redis("w/1"), 1)
    assert behind.zrange("qworker:leases", 0, -1) == [b"w/1"]
    assert behind.hkeys("qworker:sessions") == [b"w/1"]
    assert behind.keys("qworker:held:*") == []


def test_an_owner_that_claims_after_it_was_taken_for_dead_is_known_again(open_redis: Open, behind: redis.Redis) -> None:
    late, living = open_redis("late/1"), open_redis("living/1")
    living.publish(envelopes(1))
    late.reserve(["hipri"], 0)
    for record, forget in (("leases", behind.zrem), ("sessions", behind.hdel), ("owners", behind.srem)):
        forget(f"qworker:{record}", "late/1")  # as `living` does when it finds it dead
    assert len(late.reserve(["hipri"], 1)) == 1
    assert set(behind.zrange("qworker:leases", 0, -1)) == set(behind.hkeys("qworker:sessions"))
    assert behind.smembers("qworker:owners") == {b"late/1", b"living/1"}


def test_crash_counts_of_messages_that_left_another_way_end_with_their_list(
    open_redis: Open, behind: redis.Redis
) -> None:
    ours = open_redis("w/1")
    ours.publish(envelopes(2))
    ours.requeue(ours.reserve(["hipri"], 1), crashed=True)
    behind.rpop("hipri")  # a Celery worker takes it
    assert behind.exists("qworker:crashes:hipri") == 1
    assert [delivery.crashes for delivery in ours.reserve(["hipri"], 9)] == [0]
    assert behind.exists("qworker:crashes:hipri") == 0


def test_what_arrives_between_the_look_and_the_arming_is_found(open_redis: Open, proxy: Proxy) -> None:
    ours, producer = open_redis("w/1", url=proxy.url), open_redis()
    assert ours.reserve(["hipri"], 9) == []
    proxy.interrupt_before(b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING", lambda: producer.publish(envelopes(1)))
    assert numbers_of(ours.reserve(["hipri"], 9, arm=True)) == [0]


def test_a_user_without_the_right_to_track_polls_instead(
    own_server: RedisServer, open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with own_server.client() as behind:
        # Redis 6.2 can allow a subcommand, but not take one away.
        rights = ["+@all", "-client", "+client|setname", "+client|id"]
        behind.acl_setuser("shop", enabled=True, passwords=["+s3cret"], keys=["*"], commands=rights)
    with caplog.at_level(logging.INFO, logger="qworker"):
        ours = open_redis("w/1", url=own_server.url.replace("//", "//shop:s3cret@"))
        ours.connect()
    assert (ours.wake_fd(), ours.capabilities.idle_poll_s) == (None, 0.5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "polled twice a second" in caplog.text
    assert "s3cret" not in caplog.text
    assert ours.reserve(["hipri"], 1, arm=True) == []
    ours.publish(envelopes(1))
    assert numbers_of(ours.reserve(["hipri"], 1, arm=True)) == [0]


def test_an_idle_worker_sends_nothing(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    assert ours.reserve(["hipri"], 1, arm=True) == []
    before = behind.info("commandstats")
    assert select.select([ours.wake_fd()], [], [], 0.5)[0] == []
    after = behind.info("commandstats")
    assert {name for name in after if after[name]["calls"] != before.get(name, {}).get("calls")} <= {"cmdstat_info"}


def test_a_wake_up_costs_one_script_and_one_message(open_redis: Open, behind: redis.Redis) -> None:
    ours, producer = open_redis("w/1"), open_redis()
    producer.publish(envelopes(1))
    ours.ack([Ack(delivery) for delivery in ours.reserve(["hipri"], 9)])
    assert ours.reserve(["hipri"], 9, arm=True) == []
    behind.config_resetstat()
    producer.publish(envelopes(1))
    wait_until(lambda: select.select([ours.wake_fd()], [], [], 0.1)[0], "the worker is woken")
    ours.drain_wake()
    assert len(ours.reserve(["hipri"], 9)) == 1
    stats = behind.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 1
