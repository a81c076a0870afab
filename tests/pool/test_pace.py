"""How far ahead the worker works."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qworker.pool import Pace
from qworker.pool.pace import MAX_DEPTH, MAX_WINDOW


def test_nothing_waits_behind_a_task_of_unknown_length() -> None:
    assert Pace().depth() == 1


def test_short_tasks_travel_in_company() -> None:
    pace = Pace()
    for _ in range(100):
        pace.saw(0.00001)
    assert pace.depth() == MAX_DEPTH
    assert pace.window(2) == 2 * MAX_WINDOW


def test_one_long_task_is_believed_at_once() -> None:
    pace = Pace()
    for _ in range(100):
        pace.saw(0.0001)
    pace.saw(5.0)
    assert pace.depth() == 1
    assert pace.window(2) == 8


def test_a_fixed_multiplier_is_never_exceeded() -> None:
    pace = Pace(1, fixed=True)
    for _ in range(100):
        pace.saw(0.0001)
    assert pace.window(4) == 4
    assert pace.depth() == 1


@given(st.lists(st.floats(0, 1e6)), st.integers(1, 64))
def test_depth_and_window_stay_within_their_bounds(runs: list[float], children: int) -> None:
    pace = Pace()
    for busy_s in runs:
        pace.saw(busy_s)
    assert 1 <= pace.depth() <= MAX_DEPTH
    assert 4 * children <= pace.window(children) <= MAX_WINDOW * children


def test_fair_sends_one_at_a_time_however_short_the_tasks_are() -> None:
    pace = Pace(fair=True)
    for _ in range(100):
        pace.saw(0.00001)
    assert pace.depth() == 1
