"""What a run is said to have used and waited."""

from __future__ import annotations

import math
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest

from qworker.tasks import Outcome
from qworker.tasks.ids import dated_id
from qworker.tasks.message import Message
from qworker.tasks.usage import Meter
from qworker.transports import published_at


def message(tag: Any, eta: float | None = None) -> Message:
    return Message("id", "t", [], {}, {}, {}, {"delivery_tag": tag}, 0, eta, None, "q", 2, b"")


def test_a_dated_tag_is_a_uuid_that_tells_the_time() -> None:
    now = time.time()
    tag = dated_id(now)
    assert uuid.UUID(tag).version == 7
    assert abs(published_at(tag) - now) < 0.002
    assert len({dated_id(now) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "tag", ["9c56f879-c255-4f07-887e-e406727f91f9", "", None, 7, "x" * 36, "zzzzzzzz-zzzz-7zzz-zzzz-zzzzzzzzzzzz", {}]
)
def test_any_other_tag_tells_nothing(tag: Any) -> None:
    assert published_at(tag) == 0.0
    assert Meter().waited(message(tag)) == -1.0


@pytest.mark.parametrize("moment", [-1.0, 0.0, 1e9, 1e15, 281474976710.655])
def test_any_moment_has_a_tag(moment: float) -> None:
    assert uuid.UUID(dated_id(moment)).version == 7


def test_a_message_has_waited_since_it_was_published_or_due() -> None:
    now = time.time()
    meter = Meter()
    messages = [message(dated_id(now - 5)), message(dated_id(now - 50), eta=now - 5), message(None, eta=now - 5)]
    waits = [meter.waited(one) for one in messages]
    took_s = time.time() - now
    assert all(4.9 <= wait_s <= 5.1 + took_s for wait_s in waits), (waits, took_s)


def test_a_clock_that_is_wrong_makes_no_wait() -> None:
    now = time.time()
    meter = Meter()
    assert meter.waited(message(dated_id(now + 3600))) == 0.0
    assert meter.waited(message(dated_id(1.0))) == -1.0
    assert meter.waited(message(None, eta=math.nan)) == -1.0


def test_a_long_run_is_measured_with_its_subprocesses() -> None:
    meter = Meter()
    meter.begin()
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    grown = bytearray(64 * 2**20)
    grown[::4096] = b"x" * len(grown[::4096])
    outcome = Outcome(busy_s=time.monotonic() - started)
    meter.note(outcome, time.monotonic())
    assert outcome.cpu_s > 0.01
    assert outcome.peak_kib >= 0
    del grown


def test_a_short_run_after_a_reading_costs_no_other_one() -> None:
    meter = Meter()
    now = time.monotonic() + 1e6
    meter._read(now)
    outcome = Outcome(busy_s=0.0002)
    meter.note(outcome, now + 0.0002)
    assert (outcome.cpu_s, outcome.peak_kib) == (0.0002, 0)


def test_what_the_log_line_has_measured_is_what_is_reported() -> None:
    meter = Meter()
    meter.begin()
    started = time.monotonic() - 1.0
    meter._read_at -= 1.0
    usage = meter.usage(started)
    outcome = Outcome(busy_s=1.0)
    meter.note(outcome, time.monotonic())
    assert (outcome.cpu_s, outcome.peak_kib) == usage
