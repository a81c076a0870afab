"""Whom the consumer blames for a crash, and whom not: without a process or a server."""

from __future__ import annotations

import json

from qworker.tasks import Outcome
from qworker.worker.death import Death

from support.consumer_bench import Bench, message, started


def test_a_crash_is_blamed_on_the_message_that_was_read_and_on_no_other(bench: Bench) -> None:
    child = bench.child()
    for _ in range(60):  # until the pace sends several at a time
        bench.publish("x")
        bench.turn()
        while (read := child.read()) is not None:
            child.done(read[0], Outcome(task_id="x", busy_s=0.00001))
        bench.turn()
    bench.publish("a", "b", "c")
    bench.turn()
    assert started(child) > 0
    bench.mailbox.post("quiet")
    bench.turn()
    bench.buried(child, Death(-9, 1234))
    bench.mailbox.post("drain")
    bench.turn()
    bench.other.connect()
    back = bench.other.reserve(["q"], 10)
    assert {json.loads(d.raw)["headers"]["id"]: d.crashes for d in back} == {"a": 1, "b": 0, "c": 0}


def test_the_third_crash_dead_letters_with_its_cause_and_a_failure(bench: Bench) -> None:
    bench.publish("a")
    for _ in range(3):
        child = bench.child()
        bench.turn()
        started(child)
        bench.buried(child, Death(-11, 99))
    bench.turn()
    (dead,) = bench.transport.dead_letters()
    assert (dead.reason, dead.raw) == ("crashed", message("a"))
    assert "SIGSEGV" in dead.details["cause"]
    assert json.loads(bench.store.stored[-1].meta)["status"] == "FAILURE"
    assert bench.waiting() == 0


def test_an_interrupted_message_is_requeued_uncounted(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    started(child)
    bench.mailbox.post("drain")
    bench.buried(child, Death(-9, 1, is_ours=True))
    bench.turn()
    bench.other.connect()
    assert [d.crashes for d in bench.other.reserve(["q"], 10)] == [0]
    assert bench.notices[-1].data["cut"] == ["a"]


def test_what_a_dead_child_had_reported_counts(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    child.done(started(child))
    bench.buried(child, Death(-9))
    bench.turn()
    assert bench.waiting() == 0
    assert len(bench.ledger) == 0


def test_what_has_run_for_a_moment_is_marked_and_what_waits_is_not(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a", "b")
    bench.turn()
    seq = started(child)
    bench.table.begin(child.channel.slot, seq, bench.clock.monotonic(), b"a t")
    bench.turn()
    assert bench.transport.calls["mark_started"] == 0
    bench.turn(6)
    assert bench.transport.calls["mark_started"] == 1
    bench.other.connect()
    bench.clock.advance(31)
    bench.other.maintain()
    back = bench.other.reserve(["q"], 10)
    assert {json.loads(d.raw)["headers"]["id"]: d.crashes for d in back} == {"a": 1, "b": 0}


def test_short_tasks_are_never_marked(bench: Bench) -> None:
    child = bench.child()
    for _ in range(50):
        bench.publish("x")
        bench.turn(1)
        if (read := child.read()) is not None:
            bench.table.begin(child.channel.slot, read[0], bench.clock.monotonic(), b"x t")
            bench.clock.advance(0.010)
            child.done(read[0])
        bench.turn(1)
    assert bench.consumer.load()[0] <= 1
    assert bench.transport.calls["mark_started"] == 0


def test_a_mark_that_did_not_arrive_is_made_after_the_reconnect(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    bench.table.begin(child.channel.slot, started(child), bench.clock.monotonic(), b"a t")
    bench.transport.fail_before("mark_started")
    bench.turn(6)
    bench.clock.advance(1)
    bench.turn()
    assert bench.transport.calls["mark_started"] == 2


def test_a_stop_ends_the_marks_whatever_happens_to_the_connection(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    bench.table.begin(child.channel.slot, started(child), bench.clock.monotonic(), b"a t")
    bench.turn(6)
    assert bench.transport.calls["mark_started"] == 1
    bench.transport.fail_before("mark_stopping")
    bench.mailbox.post("drain")
    bench.turn()
    bench.clock.advance(1)
    bench.turn(9)
    assert (bench.transport.calls["mark_stopping"], bench.transport.calls["mark_started"]) == (2, 1)
    bench.other.connect()
    bench.clock.advance(31)
    bench.other.maintain()
    assert [d.crashes for d in bench.other.reserve(["q"], 10)] == [0]


def crashed_with_its_worker(bench: Bench, times: int) -> None:
    """Publish "a" and let `times` workers die with it, in a row."""
    bench.publish("a")
    bench.other.connect()
    for _ in range(times):
        (delivery,) = bench.other.reserve(["q"], 1)
        bench.other.requeue([delivery], crashed=True)


def test_a_message_that_took_three_workers_down_reaches_no_child(bench: Bench) -> None:
    crashed_with_its_worker(bench, 3)
    child = bench.child()
    bench.turn()
    assert child.read() is None
    (dead,) = bench.transport.dead_letters()
    assert (dead.reason, dead.crashes, dead.raw) == ("crashed", 3, message("a"))
    assert "worker" in dead.details["cause"]
    assert json.loads(bench.store.stored[-1].meta)["status"] == "FAILURE"
    assert len(bench.ledger) == 0


def test_a_message_that_took_two_workers_down_runs_first(bench: Bench) -> None:
    crashed_with_its_worker(bench, 2)
    bench.publish("b")
    child = bench.child()
    bench.turn()
    assert (child.read() or (0, b""))[1] == message("a")
