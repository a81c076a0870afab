"""The size of the pool follows the work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qworker.worker.autoscale import KEEP_S, Autoscale


def test_it_grows_by_what_waits_when_nobody_is_free() -> None:
    assert Autoscale(3, 10).wanted(3, 3, 4, 0.0) == 7
    assert Autoscale(3, 10).wanted(3, 3, 40, 0.0) == 10


def test_it_does_not_grow_while_somebody_is_free() -> None:
    assert Autoscale(3, 10).wanted(4, 3, 40, 0.0) == 4


def test_it_shrinks_by_one_after_somebody_was_free_for_a_while() -> None:
    scale = Autoscale(3, 10)
    assert scale.wanted(8, 2, 0, 0.0) == 8
    assert scale.wanted(8, 2, 0, KEEP_S - 0.1) == 8
    assert scale.wanted(8, 2, 0, KEEP_S) == 7
    assert scale.wanted(7, 2, 0, KEEP_S + 1) == 7


def test_being_busy_in_between_starts_the_wait_anew() -> None:
    scale = Autoscale(1, 4)
    scale.wanted(4, 1, 0, 0.0)
    scale.wanted(4, 4, 0, 5.0)
    assert scale.wanted(4, 1, 0, KEEP_S) == 4


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50), st.floats(0, 5)), max_size=50))
def test_it_stays_between_its_bounds(steps: list[tuple[int, int, float]]) -> None:
    scale, size, now = Autoscale(2, 9), 2, 0.0
    for busy, waiting, passed in steps:
        now += passed
        size = scale.wanted(size, min(busy, size), waiting, now)
        assert 2 <= size <= 9
