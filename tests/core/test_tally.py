"""What is counted, and that nobody can make it grow without end."""

from __future__ import annotations

from qworker.core.tally import OTHER, STEPS, Ending, Tally


def test_a_run_is_counted_in_its_steps_and_sums() -> None:
    tally = Tally(["a"], ["q"])
    tally.ended(b"a", "q", Ending.SUCCEEDED, 0.005, 0.2, 0.001, 10)
    tally.ended(b"a", "q", Ending.FAILED, 7200.0, 0.0, 2.0, 5)
    one = tally.tasks()["a", "q"]
    assert (one.endings[Ending.SUCCEEDED], one.endings[Ending.FAILED]) == (1, 1)
    assert (one.runs[0], one.runs[-1], sum(one.runs)) == (1, 1, 2)
    assert (one.waits[0], one.waits[STEPS.index(0.25)]) == (1, 1)
    assert (one.run_s, one.cpu_s, one.peak_kib) == (7200.005, 2.001, 10)
    assert tally.endings() == {"succeeded": 1, "failed": 1}


def test_every_step_takes_what_is_as_long_as_its_end() -> None:
    tally = Tally(["a"], ["q"])
    for end in STEPS:
        tally.ended(b"a", "q", Ending.SUCCEEDED, end, end, 0.0, 0)
    one = tally.tasks()["a", "q"]
    assert one.runs == one.waits == [1] * len(STEPS) + [0]


def test_names_of_strangers_become_no_labels() -> None:
    tally = Tally(["a"], ["q"])
    for number in range(10_000):
        tally.noted(f"made up {number}", "q", Ending.REFUSED)
        tally.noted("a", f"elsewhere {number}", Ending.CRASHED)
        tally.buried(f"elsewhere {number}", "unknown_task")
    assert set(tally.tasks()) == {(OTHER, "q"), ("a", OTHER)}
    assert tally.dead() == {(OTHER, "unknown_task"): 10_000}


def test_ever_new_code_does_not_fill_the_memory() -> None:
    tally = Tally([], ["q"])
    for number in range(12_000):
        tally.ended(b"task%d" % number, "q", Ending.SUCCEEDED, 0.0, 0.0, 0.0, 0)
        tally.buried("q", f"reason {number}")
    assert len(tally.tasks()) <= 5001
    assert len(tally.dead()) <= 5001
    assert tally.endings() == {"succeeded": 12_000}


def test_nothing_has_ended_at_first() -> None:
    assert Tally().endings() == {}
