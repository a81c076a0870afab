"""The judge is no use if it never complains: good books pass, and each kind of bad book is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.chaos import Amnesia, Fault, Kill, Run, Silence, Task, Verdict, judge, read_book
from support.chaos.book import LENGTH

TASK = [Task("a")]


def run(
    started: float, ended: float | None = None, *, worker: str = "w1", pid: int = 7, key: tuple[str, int] = ("a", 0)
) -> Run:
    return Run(key, f"{worker}.{pid}.{started}", worker, pid, 5, started, ended or started, ended)


def complaints(tasks: list[Task], runs: list[Run], *faults: Fault, **rest: Any) -> list[str]:
    return [text.split(":")[0] for text in judge(tasks, runs, faults, **rest).complaints]


def test_one_run_that_ended_is_what_is_wanted() -> None:
    assert judge(TASK, [run(1, 2)], results={"a": "w1.7.1"}) == Verdict(runs=1)


def test_a_message_that_never_ran_is_lost() -> None:
    verdict = judge(TASK, [])
    assert (verdict.lost, len(verdict.complaints)) == (1, 1)


def test_a_message_whose_publish_failed_may_be_nowhere_but_what_began_must_end() -> None:
    unsure = [Task("a", is_certain=False)]
    assert complaints(unsure, []) == []
    assert complaints(unsure, [run(1)], Kill(1.5, "w1")) == ["lost"]


def test_a_run_that_was_killed_and_not_repeated_is_lost() -> None:
    assert complaints(TASK, [run(1)], Kill(1.5, "w1")) == ["lost"]


def test_a_message_that_still_waits_is_stuck() -> None:
    assert complaints(TASK, [], left={"a": "inflight"}) == ["stuck"]


def test_a_retry_that_never_came_is_lost() -> None:
    assert complaints([Task("a", attempts=2)], [run(1, 2)]) == ["lost"]


def test_a_run_that_was_killed_may_be_repeated() -> None:
    verdict = judge(TASK, [run(1), run(3, 4, worker="w2")], [Kill(1.5, "w1")])
    assert (verdict.complaints, verdict.repeated, verdict.recovery_s) == ([], 1, [1.5])


@pytest.mark.parametrize(
    "kill",
    [
        Kill(1.5, "w2"),  # of another worker
        Kill(1.5, "w1", 8),  # of another child
        Kill(3.5, "w1"),  # after the second run had begun
    ],
)
def test_a_run_that_no_kill_can_have_cut_is_neither_repeated_nor_without_an_end(kill: Kill) -> None:
    found = complaints(TASK, [run(1), run(3, 4, worker="w3")], kill)
    assert "repeated though nothing cut it" in found


@pytest.mark.parametrize(("killed_at", "found"), [(2.04, []), (2.06, ["repeated though nothing cut it"])])
def test_a_run_that_ended_is_repeated_only_if_its_worker_was_killed_in_the_ack_window(
    killed_at: float, found: list[str]
) -> None:
    assert complaints(TASK, [run(1, 2), run(3, 4, worker="w2")], Kill(killed_at, "w1")) == found


@pytest.mark.parametrize(
    ("pulse", "is_excused"),
    [
        ([(1.0, 5.0), (2.0, 5.0), (2.2, 5.16)], True),
        ([(1.0, 5.0), (2.0, 5.0), (2.2, 5.14)], False),  # 60 ms in which nobody waited
        ([(1.0, 0.0), (1.9, 0.9), (2.0, 0.9)], False),  # before its end
        ([(1.0, 5.0), (1.99, 5.0), (2.25, 5.25)], True),  # whoever counts had to wait himself
        ([(1.0, 5.0), (1.99, 5.0), (2.205, 5.005), (2.5, 5.3)], False),  # behind it
        ([(2.1, 7.0)], False),
        ([], False),
    ],
)
def test_the_ack_window_counts_the_time_in_which_nobody_waits_for_a_processor(
    pulse: list[tuple[float, float]], is_excused: bool
) -> None:
    runs, kill = [run(1, 2), run(5, 6, worker="w2")], Kill(2.2, "w1")
    verdict = judge(TASK, runs, [kill], pulse=pulse)
    assert (verdict.complaints == [], verdict.stretched) == (is_excused, int(is_excused))


def test_no_ack_takes_longer_than_a_second_on_any_machine() -> None:
    runs, kill = [run(1, 2), run(5, 6, worker="w2")], Kill(3.1, "w1")
    assert complaints(TASK, runs, kill, pulse=[(2.0, 0.0), (4.0, 2.0)]) == ["repeated though nothing cut it"]


def test_a_childs_run_was_told_when_it_began_the_next_one() -> None:
    runs = [run(1, 2), run(2.01, key=("b", 0)), run(3, 4, pid=8), run(5, 6, pid=8, key=("b", 0))]
    assert complaints([Task("a"), Task("b")], runs, Kill(2.02, "w1", 7)) == ["repeated though nothing cut it"]
    assert complaints([Task("a"), Task("b")], runs, Kill(2.02, "w1")) == []


def test_a_spawners_death_cuts_the_runs_of_its_children() -> None:
    assert complaints(TASK, [run(1), run(3, 4, pid=8)], Kill(1.5, "w1", 5)) == []


def test_a_run_without_an_end_that_nothing_has_cut_has_vanished() -> None:
    assert complaints(TASK, [run(1)], left={"a": "inflight"}) == ["stuck", "vanished"]


def test_two_runs_at_a_time_are_never_right() -> None:
    first = run(1)
    first.seen = 3.5
    assert complaints(TASK, [first, run(3, 4, worker="w2")], Kill(2, "w1")) == ["two at a time"]
    assert complaints([Task("a", attempts=2)], [run(1, 2), run(1.5, 3, key=("a", 1))]) == ["two at a time"]


def test_a_silence_longer_than_the_lease_allows_a_second_run_of_what_had_begun_and_of_nothing_else() -> None:
    frozen = Silence(1.5, 6, "w1", lease_s=2)
    assert complaints(TASK, [run(1, 7), run(4, 5, worker="w2")], frozen) == []
    late = complaints(TASK, [run(4, 5, worker="w2"), run(6.5, 7)], frozen)
    assert late == ["repeated though nothing cut it"]
    assert complaints(TASK, [run(1, 7), run(4, 5, worker="w2")], Silence(1.5, 2, "w1", 2)) != []


def test_the_result_of_the_run_that_was_lost_must_not_win() -> None:
    frozen = Silence(1.5, 6, "w1", lease_s=2)
    runs = [run(1, 7), run(4, 5, worker="w2")]
    assert complaints(TASK, runs, frozen, results={"a": runs[1].nonce}) == []
    assert complaints(TASK, runs, frozen, results={"a": runs[0].nonce}) == ["result"]


def test_only_a_pause_right_after_its_end_lets_an_older_result_win() -> None:
    runs = [run(1, 2), run(5, 6, worker="w2")]
    for since, is_pause, found in ((2.01, True, []), (2.01, False, ["result"]), (1.99, True, ["result"])):
        fault = Silence(since, 8, "w1", lease_s=2, is_pause=is_pause)
        assert complaints(TASK, runs, fault, results={"a": runs[0].nonce}) == found


def test_a_result_that_is_missing_or_of_no_run_is_named() -> None:
    assert complaints(TASK, [run(1, 2)], results={"a": None}) == ["result"]
    assert complaints(TASK, [run(1, 2)], results={"a": "other"}) == ["result"]


def test_at_most_once_is_once_whatever_was_broken() -> None:
    once = [Task("a", at_most_once=True)]
    assert complaints(once, [run(1), run(3, 4, worker="w2")], Kill(1.5, "w1")) == ["twice"]
    assert complaints(once, [run(1)], Kill(1.5, "w1")) == []
    assert judge(once, []).vanished == 1


def test_what_the_broker_has_forgotten_may_run_again() -> None:
    runs = [run(1, 2), run(3, 4, worker="w2")]
    assert complaints(TASK, runs, Amnesia(1.5, 2.5)) == []
    assert complaints(TASK, runs, Amnesia(2.2, 2.5)) == ["repeated though nothing cut it"]
    assert complaints([Task("a", at_most_once=True)], runs, Amnesia(1.5, 2.5)) == []


def test_what_the_broker_has_forgotten_may_be_lost_and_nothing_else_may() -> None:
    assert complaints([Task("a", published=2)], [], Amnesia(1, 3)) == []
    assert complaints([Task("a", published=2)], [], Amnesia(3, 4)) == ["lost"]


def test_a_dead_letter_needs_three_crashes() -> None:
    runs = [run(at, pid=int(at)) for at in (1.0, 2.0, 3.0)]
    kills = [Kill(at + 0.5, "w1", int(at)) for at in (1.0, 2.0, 3.0)]
    assert complaints(TASK, runs, *kills, dead=["a"]) == []
    assert complaints(TASK, runs[:2], *kills, dead=["a"]) == ["dead without a reason"]


def test_what_follows_a_dead_letter_never_runs() -> None:
    runs = [run(at, pid=int(at)) for at in (1.0, 2.0, 3.0)]
    kills = [Kill(at + 0.5, "w1", int(at)) for at in (1.0, 2.0, 3.0)]
    links = [Task("a"), Task("b", after="a"), Task("c", after="b")]
    assert complaints(links, runs, *kills, dead=["a"]) == []
    assert complaints(links, [run(1, 2)]) == ["lost", "lost"]


def test_nothing_starts_before_its_time() -> None:
    assert complaints([Task("a", not_before=1.5)], [run(1, 2)]) == ["early"]
    links = [Task("a"), Task("b", after="a")]
    assert complaints(links, [run(1, 2), run(1.5, 3, pid=8, key=("b", 0))]) == ["early"]


def test_strangers_are_named() -> None:
    assert complaints([], [run(1, 2)]) == ["stranger"]
    assert complaints(TASK, [run(1, 2)], left={"z": "ready"}) == ["stranger"]
    assert complaints(TASK, [run(1, 2), run(3, 4, key=("a", 1))]) == ["stranger"]


def record(kind: str, nonce: str = "n") -> bytes:
    return f"{kind} a 0 {nonce} w1 7 5 1.5".ljust(LENGTH - 1).encode() + b"\n"


def test_a_book_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(record("start") + record("end"))
    runs, found = read_book(book)
    assert ([r.ended for r in runs], found) == ([1.5], [])
    for bad in (record("end", "z"), record("start"), record("end"), record("start", "y")[:40], b"x" * LENGTH):
        book.write_bytes(record("start") + record("end") + bad)
        assert len(read_book(book)[1]) == 1
