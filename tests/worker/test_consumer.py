"""The consumer's promises, one by one, without a process or a server."""

from __future__ import annotations

import json

import pytest

from qworker.pool import Say, Tell
from qworker.pool.wire import pack_record, pack_state
from qworker.results import StoredResult
from qworker.tasks import Action, Outcome
from qworker.transports import Envelope
from qworker.worker.death import Death
from qworker.worker.settler import FULL_BYTES

from support.consumer_bench import Bench, FakeChild, message


def started(child: FakeChild) -> int:
    read = child.read()
    assert read is not None, "the child has nothing to start"
    return read[0]


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


def test_a_lost_lease_fences_what_runs_and_drops_what_waits(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a", "b")
    bench.turn()
    seq = started(child)
    bench.other.connect()
    bench.clock.advance(31)
    bench.other.maintain()
    assert len(bench.other.reserve(["q"], 10)) == 2
    bench.turn()
    child.done(seq, Outcome(Action.ACK, "a", b'{"status": "SUCCESS"}', True))
    bench.turn()
    assert bench.store.stored == []
    assert child.read() is None
    assert len(bench.ledger) == 0


def test_what_a_reserve_with_a_lost_reply_took_is_found_again(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.transport.fail_after("reserve")
    bench.turn(1)
    bench.clock.advance(20)
    bench.turn()
    assert child.read() is not None


def test_acks_survive_a_broken_connection(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    seq = started(child)
    bench.transport.go_down()
    child.done(seq)
    bench.turn()
    assert len(bench.ledger) == 1
    bench.transport.come_back()
    for _ in range(4):
        bench.clock.advance(16)
        bench.turn()
    assert len(bench.ledger) == 0
    assert bench.waiting() == 0


def test_the_worker_gives_up_after_its_attempts(bench: Bench) -> None:
    bench.transport.go_down()
    for _ in range(6):
        bench.turn(1)
        bench.clock.advance(20)
    assert bench.kinds()[-1] == "unreachable"


def test_children_may_start_without_asking_only_while_the_lease_is_certain(bench: Bench) -> None:
    bench.turn()
    assert bench.horizons[-1] == pytest.approx(bench.clock.boottime() + 30 * 0.8, abs=0.1)


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


def test_nothing_more_is_started_while_too_much_waits_to_be_sent(bench: Bench) -> None:
    child = bench.child()
    bench.store.is_down = True
    bench.settler.result(None, StoredResult("large", b"x" * FULL_BYTES, True))
    bench.publish("b")
    bench.turn()
    assert child.read() is None
    bench.store.is_down = False
    bench.clock.advance(2)
    bench.turn()
    assert child.read() is not None


def test_states_are_dropped_when_there_is_no_room_and_outcomes_are_not(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    bench.transport.go_down()
    bench.settler.result(None, StoredResult("large", b"x" * FULL_BYTES, True))
    child.talk.sendall(pack_state(1, "a", b"progress"))
    bench.turn()
    assert bench.settler.dropped_results == 1
    child.done(started(child), Outcome(Action.ACK, "a", b"{}", True))
    bench.turn()
    bench.transport.come_back()
    bench.clock.advance(20)
    bench.turn()
    assert [result.task_id for result in bench.store.stored] == ["large", "a"]


def test_a_worker_that_hears_nothing_makes_its_connection_anew_and_then_gives_up(bench: Bench) -> None:
    bench.child()
    deaf = bench.transport
    deaf.answer("reserve", [])
    bench.publish("a")
    connects = deaf.calls["connect"]
    for _ in range(60):
        bench.clock.advance(1)
        bench.turn(1)
    assert deaf.calls["connect"] == connects + 1
    assert "deaf" not in bench.kinds()
    for _ in range(60):
        bench.clock.advance(1)
        bench.turn(1)
    assert "deaf" in bench.kinds()


def test_a_worker_that_hears_again_after_its_connection_was_made_anew_goes_on(bench: Bench) -> None:
    child = bench.child()
    bench.transport.answer("reserve", [])
    bench.publish("a")
    for _ in range(50):
        bench.clock.advance(1)
        bench.turn(1)
    bench.transport.answer("reserve", None)
    for _ in range(50):
        bench.clock.advance(1)
        bench.turn(1)
    assert child.read() is not None
    assert "deaf" not in bench.kinds()


@pytest.mark.parametrize("excuse", ["empty", "quiet", "busy"])
def test_silence_is_no_deafness_when_nothing_waits_or_nothing_is_wanted(bench: Bench, excuse: str) -> None:
    bench.child()
    if excuse == "quiet":
        bench.mailbox.post("quiet")
    if excuse != "empty":
        bench.publish(*"abcdefghijkl")
    for _ in range(200):
        bench.clock.advance(1)
        bench.turn(1)
    assert bench.transport.calls["connect"] == 1
    assert "deaf" not in bench.kinds()


def test_an_outcome_that_cannot_be_handled_costs_its_message_and_nothing_else(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a", "b")
    bench.turn()
    child.say(Say.DONE, started(child))  # without an outcome
    bench.turn()
    (dead,) = bench.transport.dead_letters()
    assert (dead.reason, dead.raw) == ("internal_error", message("a"))
    assert json.loads(bench.store.stored[-1].meta)["status"] == "FAILURE"
    child.done(started(child))
    bench.turn()
    assert len(bench.ledger) == 0


class Boom(Exception):
    """No error that anybody expects."""


def fail_once_in(bench: Bench, monkeypatch: pytest.MonkeyPatch, target: object, name: str, *, after: bool) -> None:
    """Let the next call of `target.name` fail, `after` it has done its work or before, and run the thread's body."""
    real = getattr(target, name)

    def failing(*args: object, **kwargs: object) -> object:
        monkeypatch.undo()
        if after:
            real(*args, **kwargs)
        raise Boom

    monkeypatch.setattr(target, name, failing)
    while "failed" not in bench.kinds():
        bench.mailbox.post("stop")
        bench.consumer.run()
        bench.consumer._obeying.is_stopped = False


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("transport", "reserve"),
        ("transport", "ack"),
        ("ledger", "receive"),
        ("ledger", "take"),
        ("ledger", "settle"),
        ("ledger", "forget"),
        ("settler", "ack"),
        ("settler", "flush"),
    ],
)
def test_after_any_error_a_new_thread_settles_every_message_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, owner: str, name: str, after: bool
) -> None:
    child = bench.child()
    bench.publish(*"abcdef")
    bench.turn()
    ran: list[bytes] = []

    def work(times: int) -> None:
        for _ in range(times):
            while read := child.read():
                ran.append(read[1])
                child.done(read[0], Outcome(task_id="x"))
            bench.clock.advance(0.01)
            bench.turn(1)

    child.done(started(child))
    ran.append(message("a"))
    target = {"transport": bench.transport.inner, "ledger": bench.ledger, "settler": bench.settler}[owner]
    bench.publish("g")
    bench.clock.advance(3)
    fail_once_in(bench, monkeypatch, target, name, after=after)
    bench.consumer.revive({1})
    bench.clock.advance(20)
    work(60)
    assert sorted(set(ran)) == [message(name) for name in "abcdefg"]
    assert len(bench.ledger) == 0
    assert len(bench.settler) == 0
    bench.other.connect()
    assert bench.waiting() == 0


def test_a_new_thread_buries_children_whose_end_nobody_told(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    started(child)
    child.die()
    bench.consumer.revive(set())
    bench.clock.advance(20)
    bench.turn()
    bench.mailbox.post("drain")
    bench.turn()
    bench.other.connect()
    assert [d.crashes for d in bench.other.reserve(["q"], 10)] == [1]


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


def test_a_worker_that_stood_still_in_the_middle_of_a_turn_stores_no_late_result(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    seq = started(child)
    bench.other.connect()
    child.done(seq, Outcome(Action.ACK, "a", b'{"status": "SUCCESS"}', True))
    tend = bench.link.tend

    def tend_and_stand_still(now: float) -> None:
        bench.link.tend = tend  # type: ignore[method-assign]
        tend(now)
        bench.clock.advance(31)
        bench.other.maintain()
        assert len(bench.other.reserve(["q"], 10)) == 1

    bench.link.tend = tend_and_stand_still  # type: ignore[method-assign]
    bench.turn()
    assert bench.store.stored == []
    assert len(bench.ledger) == 0


def test_messages_in_nobodys_hands_are_found(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    started(child)
    bench.consumer._dispatcher.seats[1].load = 0  # as after a defect in the books
    bench.turn()
    bench.clock.advance(31)
    with pytest.raises(RuntimeError, match="nobody"):
        bench.turn(1)
    bench.consumer.revive({1})
    bench.clock.advance(20)
    bench.turn()
    assert child.read() == (1, message("a"))


def test_results_are_given_up_after_their_time_and_stored_again_soon_after_the_store_is_back(bench: Bench) -> None:
    child = bench.child()
    bench.store.is_down = True
    bench.publish("a")
    bench.turn()
    child.done(started(child), Outcome(Action.ACK, "a", b"{}", True))
    for _ in range(15):
        bench.clock.advance(1)
        bench.turn(1)
    assert (len(bench.ledger), bench.settler.dropped_results) == (0, 1)
    bench.store.is_down = False
    bench.clock.advance(1)
    bench.publish("b")
    bench.turn()
    child.done(started(child), Outcome(Action.ACK, "b", b"{}", True))
    bench.turn()
    assert [result.task_id for result in bench.store.stored] == ["b"]


def test_the_time_without_a_broker_is_not_taken_from_the_result_stores(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    bench.store.is_down = True
    child.done(started(child), Outcome(Action.ACK, "a", b"{}", True))
    bench.turn()
    bench.transport.go_down()
    for _ in range(15):
        bench.clock.advance(1)
        bench.turn(1)
    bench.transport.come_back()
    bench.clock.advance(16)
    bench.turn(1)
    bench.store.is_down = False
    bench.clock.advance(2)
    bench.turn()
    assert [result.task_id for result in bench.store.stored] == ["a"]
    assert (len(bench.ledger), bench.settler.dropped_results) == (0, 0)
