"""What `unique` and `unique_for` make of a call: a header, and an envelope that has to get its lock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from qworker import App, ConfigError
from qworker.tasks.publishing import prepare
from qworker.transports import Envelope, seal_of


def envelope_of(app: App, **options: Any) -> Envelope:
    return prepare(app, "t.task", **options).envelope


def lasts_s(envelope: Envelope) -> float | None:
    seal = seal_of(envelope.raw)
    return None if seal is None else seal.lasts_s


def test_a_unique_call_with_an_id_bears_a_lock() -> None:
    first = envelope_of(App("t"), task_id="x", unique=True)
    second = envelope_of(App("t"), task_id="x", unique=True)
    one, two = seal_of(first.raw), seal_of(second.raw)
    assert first.unique
    assert one is not None
    assert two is not None
    assert one.lock == two.lock
    assert one.nonce != two.nonce
    assert one.lasts_s == 86400


@pytest.mark.parametrize("options", [{"unique": True}, {"task_id": "x"}, {"task_id": "x", "unique": False}])
def test_any_other_call_bears_none(options: dict[str, Any]) -> None:
    envelope = envelope_of(App("t"), **options)
    assert not envelope.unique
    assert seal_of(envelope.raw) is None


@pytest.mark.parametrize(
    ("value", "expected"), [(60, 60.0), (0.25, 0.25), (timedelta(minutes=2), 120.0), (float("inf"), 999999999999.999)]
)
def test_the_time_of_a_lock_can_be_set(value: Any, expected: float) -> None:
    assert lasts_s(envelope_of(App("t"), task_id="x", unique=True, unique_for=value)) == expected


@pytest.mark.parametrize("value", [0, -1, float("nan"), timedelta(0)])
def test_a_lock_without_time_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="unique_for must be more than 0"):
        envelope_of(App("t"), task_id="x", unique=True, unique_for=value)
    with pytest.raises(ConfigError, match="unique_for"):
        App("t").task(name="t.task", unique=True, unique_for=value)(lambda: None)


def test_a_task_says_what_its_calls_do_unless_they_say_otherwise() -> None:
    app = App("t")
    task = app.task(name="t.task", unique=True, unique_for=5)(lambda: None)
    assert lasts_s(envelope_of(app, task=task, task_id="x")) == 5
    assert lasts_s(envelope_of(app, task=task, task_id="x", unique_for=7)) == 7
    assert lasts_s(envelope_of(app, task=task, task_id="x", unique=False)) is None


def test_other_headers_of_the_call_stay() -> None:
    envelope = envelope_of(App("t"), task_id="x", unique=True, headers={"mine": 1})
    assert b'"mine": 1' in envelope.raw
    assert seal_of(envelope.raw) is not None


def test_an_id_that_is_no_valid_unicode_can_be_unique() -> None:
    assert envelope_of(App("t"), task_id="\ud800", unique=True).unique
