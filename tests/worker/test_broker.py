"""How long the worker waits for its broker."""

from __future__ import annotations

import pytest

from qworker.worker.broker import longest_call_s


@pytest.mark.parametrize(
    ("lease_s", "deaf_timeout_s", "most_s"),
    [(30.0, 30.0, 7.5), (300.0, 30.0, 7.5), (30.0, 0.0, 7.5), (8.0, 30.0, 2.0), (1.0, 30.0, 1.0)],
)
def test_one_answer_is_waited_for_less_than_a_lease_lasts_and_less_than_a_thread_may_be_silent(
    lease_s: float, deaf_timeout_s: float, most_s: float
) -> None:
    assert longest_call_s(lease_s, deaf_timeout_s) == most_s
