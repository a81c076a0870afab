"""The consumer's promises, one by one, without a process or a server: from a message to its ack, and a stop."""

from __future__ import annotations

import json

import pytest

from qworker.pool import Say, Tell
from qworker.pool.wire import pack_record
from qworker.tasks import Action, Outcome
from qworker.transports import Envelope
from qworker.worker.death import Death

from support.consumer_bench import Bench, message, started


def test_a_message_goes_to_a_child_and_its_ack_to_the_broker_after_its_result(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    seq, raw = child.read() or (0, b"")
    assert raw == message("a")
    child.done(seq, Outcome(Action.ACK, "a", b'{"status": "SUCCESS"}', True))
    bench.turn()
    assert [r.task_id for r in bench.store.stored] == ["a"]
    assert len(bench.ledger) == 0


def test_a_message_is_not_acked_before_its_result_is_stored(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    acked_when_stored = []
    store = bench.store.store
    bench.store.store = lambda results: (acked_when_stored.append(len(bench.ledger) == 0), store(results))[1]  # type: ignore[method-assign]
    child.done(started(child), Outcome(Action.ACK, "a", b"{}", True))
    bench.turn()
    assert acked_when_stored == [False]


def test_nothing_is_sent_to_a_child_that_is_not_ready(bench: Bench) -> None:
    bench.publish("a")
    bench.turn()
    assert bench.waiting() == 1


def test_a_child_says_what_it_weighs_before_it_takes_work(bench: Bench) -> None:
    child = bench.child()
    child.talk.sendall(pack_record(Say.READY, 0, b"1234"))
    bench.turn()
    assert [n.data["kib"] for n in bench.notices if n.kind == "ready"] == [None, 1234]


def test_work_is_shared_between_idle_children(bench: Bench) -> None:
    first, second = bench.child(), bench.child()
    bench.publish("a", "b")
    bench.turn()
    assert first.read() is not None
    assert second.read() is not None


def test_a_child_and_its_successor_never_work_at_the_same_time(bench: Bench) -> None:
    old, new = bench.child(), bench.child()
    bench.mailbox.post("size", size=1)
    bench.publish("a", "b")
    bench.turn()
    first, idle = (old, new) if (seq := old.read()) else (new, old)
    seq = seq or first.read()
    assert seq is not None
    assert idle.read() is None
    bench.mailbox.post("retire", serial=first.channel.serial)
    bench.turn()
    assert idle.read() is None
    first.done(seq[0])
    bench.turn()
    assert idle.read() is not None


def test_a_successor_is_published_by_the_ack(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    bench.mailbox.post("quiet")
    child.done(started(child), Outcome(Action.ACK, "a", successors=(Envelope("q", message("b")),)))
    bench.turn()
    assert bench.waiting() == 1


def test_a_drain_gives_back_what_no_child_has_read_at_the_front_and_in_order(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a", "b", "c", "d", "e")
    bench.turn()
    assert started(child) == 1
    bench.mailbox.post("drain")
    bench.turn()
    assert bench.waiting() == 4
    bench.other.connect()
    names = [json.loads(d.raw)["headers"]["id"] for d in bench.other.reserve(["q"], 10)]
    assert names == ["b", "c", "d", "e"]


def test_a_drain_does_not_take_the_order_to_leave_back_from_a_child(bench: Bench) -> None:
    child = bench.child()
    bench.mailbox.post("retire", serial=child.channel.serial)
    bench.turn()
    bench.mailbox.post("drain")
    bench.turn()
    assert child.read() == (0, b"")


def test_a_drain_ends_when_the_running_task_has_ended_and_its_child_has_left(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    seq = started(child)
    bench.mailbox.post("drain")
    bench.turn()
    assert "drained" not in bench.kinds()
    child.done(seq)
    bench.turn()
    assert child.read() == (0, b"")
    bench.buried(child, Death(0))
    bench.turn()
    assert bench.kinds().count("drained") == 1
    assert len(bench.ledger) == 0


def test_an_at_most_once_task_starts_only_after_its_ack(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    seq = started(child)
    bench.transport.fail_before("ack")
    child.say(Say.BEGIN, seq)
    bench.turn(1)
    with pytest.raises(BlockingIOError):
        child.hears()
    bench.clock.advance(20)
    bench.turn()
    assert child.hears() == Tell.GO
    bench.buried(child, Death(-9))
    bench.turn()
    assert bench.waiting() == 0


def test_an_at_most_once_task_whose_acks_reply_was_lost_starts_all_the_same(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    seq = started(child)
    bench.transport.fail_after("ack")
    child.say(Say.BEGIN, seq)
    bench.turn()
    assert child.hears() == Tell.GO


def test_an_at_most_once_task_that_has_not_started_goes_back_in_a_stop(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    seq = started(child)
    bench.mailbox.post("drain")
    bench.turn()
    child.say(Say.BEGIN, seq)
    bench.turn()
    assert child.hears() == Tell.NO
    assert bench.waiting() == 1


def test_a_quiet_worker_fetches_nothing_until_it_is_resumed(bench: Bench) -> None:
    child = bench.child()
    bench.mailbox.post("quiet")
    bench.turn()
    bench.publish("a")
    bench.turn()
    assert child.read() is None
    bench.mailbox.post("resume")
    bench.clock.advance(3)
    bench.turn()
    assert child.read() is not None


def test_an_at_most_once_task_acked_unawares_and_refused_by_a_stop_is_back_in_its_queue(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    seq = started(child)
    bench.transport.fail_after("ack")
    bench.transport.fail_before("connect")
    child.say(Say.BEGIN, seq)
    bench.turn(1)
    bench.mailbox.post("drain")
    bench.turn(1)
    assert child.hears() == Tell.NO
    bench.clock.advance(5)
    bench.turn()
    assert len(bench.ledger) == 0
    bench.other.connect()
    assert [d.raw for d in bench.other.reserve(["q"], 10)] == [message("a")]
