"""The consumer while its broker or its result store is away, silent or late: without a process or a server."""

from __future__ import annotations

from contextlib import closing

import pytest

from qworker.pool.wire import pack_state
from qworker.results import StoredResult
from qworker.tasks import Action, Outcome
from qworker.worker.settler import FULL_BYTES

from support.consumer_bench import Bench, started


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


@pytest.mark.parametrize(("deaf_timeout_s", "longest_s"), [(2.0, 1.0), (30.0, 5.0), (0.0, 5.0)])
def test_a_worker_with_nothing_to_do_turns_often_enough_not_to_be_taken_for_one_that_hangs(
    deaf_timeout_s: float, longest_s: float
) -> None:
    with closing(Bench(deaf_timeout_s=deaf_timeout_s)) as bench:
        bench.mailbox.post("quiet")
        bench.turn()
        assert 0.0 < bench.consumer._timeout() <= longest_s


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
