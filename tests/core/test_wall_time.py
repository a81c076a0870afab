"""Due times and expiries in a worker go by the broker's clock, whatever this host's says."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from qworker.core.clock import SystemClock, follow_broker, wall_time


@pytest.fixture(autouse=True)
def _nobody_followed() -> Iterator[None]:
    yield
    follow_broker(lambda: 0.0)


def test_it_is_this_hosts_time_where_no_broker_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.time()
    assert before <= wall_time() <= time.time()
    follow_broker(lambda: 0.0)  # one that has not told its time yet
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert wall_time() == 5.0


def test_a_jump_of_this_hosts_clock_does_not_move_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    base = 2_000_000_000.0 - clock.boottime()
    follow_broker(lambda: base)
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert 1_999_999_999.9 <= wall_time() <= base + clock.boottime()
