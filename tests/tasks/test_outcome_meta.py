"""What is stored for a result is what Celery stores, byte for byte."""

from __future__ import annotations

import json
import pickle
from datetime import datetime
from typing import Any

import pytest

from qworker import (
    EncodeError,
    MaxRetriesExceededError,
    NotRegistered,
    Reject,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
)
from qworker.tasks.context import Context
from qworker.tasks.failures import describe
from qworker.tasks.message import Message
from qworker.tasks.outcome_meta import (
    MetaFields,
    failure_meta,
    fields_of,
    group_child,
    retry_meta,
    revoked_meta,
    started_meta,
    state_meta,
    success_meta,
    task_child,
)

from support.samples import load, stored


def values(data: Any) -> list[str]:
    """Every stored JSON text in a capture, wherever it stands."""
    if isinstance(data, dict):
        return [text for value in data.values() for text in values(value)]
    if isinstance(data, list):
        return [text for value in data for text in values(value)]
    return [data] if isinstance(data, str) and data.startswith('{"status"') else []


METAS = sorted({text for number in ("12", "24", "26") for text in values(load(number))})
METAS += [raw.decode() for number in ("13", "16", "18", "17b") for raw in stored(number)]


def error_like(result: dict[str, Any]) -> BaseException:
    """An exception that was stored as `result`."""
    ours = {kind.__name__: kind for kind in (NotRegistered, Reject, SoftTimeLimitExceeded, TimeLimitExceeded)}
    name, args = result["exc_type"], result["exc_message"]
    if name in ours:
        return ours[name](*args)
    if result["exc_module"] == "builtins":
        return {"ValueError": ValueError, "KeyError": KeyError, "TypeError": TypeError}[name](*args)
    return pytest.skip("made by another test, or by a chord")


def written_again(meta: dict[str, Any]) -> bytes:
    extended_names = [name for name in meta if name not in KNOWN]
    fields = MetaFields(
        meta.get("group_id"), meta.get("parent_id"), meta["children"], {name: meta[name] for name in extended_names}
    )
    now = datetime.fromisoformat(meta["date_done"]) if meta["date_done"] else None
    task_id, status, result = meta["task_id"], meta["status"], meta["result"]
    if status == "SUCCESS":
        return success_meta(task_id, result, fields, now=now)
    if status == "REVOKED":
        return revoked_meta(task_id, result["exc_message"][0], fields, now=now)
    if status == "RETRY":
        return retry_meta(task_id, error_like(result), meta["traceback"], fields._replace(children=[]))
    if status == "STARTED":
        return started_meta(task_id, result["pid"], result["hostname"], fields)
    if status == "FAILURE":
        return failure_meta(task_id, error_like(result), meta["traceback"], fields, now=now)
    return state_meta(task_id, status, result, fields)


KNOWN = {"status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "task_id"}
# Reject carries its reason and flag; chord errors and unpicklable ones have tests of their own or come later.
AGAIN = [t for t in METAS if "ChordError" not in t and "UnpickleableExceptionWrapper" not in t]


def test_the_captures_hold_every_state() -> None:
    assert {json.loads(text)["status"] for text in AGAIN} >= {
        "SUCCESS",
        "FAILURE",
        "RETRY",
        "STARTED",
        "REVOKED",
        "PROGRESS",
    }


@pytest.mark.parametrize("text", AGAIN)
def test_a_stored_result_is_written_again_byte_for_byte(text: str) -> None:
    assert written_again(json.loads(text)).decode() == text


class Rebuilt(ValueError):
    """Survives pickling."""


class Fussy(Exception):
    """Cannot be made again from its args."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


class FussyValue(Fussy, ValueError):
    """Cannot be made again, but its base ValueError can."""


class Unprintable(Exception):
    def __init__(self, value: object, more: int) -> None:
        super().__init__(value)

    def __repr__(self) -> str:
        raise RuntimeError("no")


class BadJson:
    def __json__(self) -> Any:
        raise RuntimeError("no")


def test_a_celery_client_finds_an_unpicklable_exception_in_the_wrapper_it_knows() -> None:
    sample = next(json.loads(text)["result"] for text in METAS if "UnpickleableExceptionWrapper" in text)
    assert sample["exc_message"][2:] == [["one"], "MyErr('one')"]
    assert describe(Fussy("one", "two")) == {
        "exc_type": sample["exc_type"],
        "exc_message": [__name__, "Fussy", ["one"], "Fussy('one')"],
        "exc_module": sample["exc_module"],
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad", 42), ("ValueError", ["bad", 42], "builtins")),
        (KeyError(), ("KeyError", [], "builtins")),
        (Rebuilt("x"), ("Rebuilt", ["x"], __name__)),
        (FussyValue("one", "two"), ("ValueError", ["one"], "builtins")),
        (ValueError({1}), ("ValueError", ["{1}"], "builtins")),
        (ValueError(BadJson), ("ValueError", [repr(BadJson)], "builtins")),
        (SystemExit(3), ("SystemExit", [3], "builtins")),
        (NotRegistered("a.b"), ("NotRegistered", ["a.b"], "celery.exceptions")),
        (MaxRetriesExceededError("x"), ("MaxRetriesExceededError", ["x"], "celery.exceptions")),
        (WorkerLostError("x"), ("WorkerLostError", ["x"], "billiard.exceptions")),
        (WorkerShutdown("x"), ("WorkerShutdown", ["x"], "qworker.core.errors")),
        (EncodeError("x"), ("EncodeError", ["x"], "kombu.exceptions")),
    ],
)
def test_an_exception_is_described_so_that_a_client_can_raise_it(
    error: BaseException, expected: tuple[str, list[Any], str]
) -> None:
    described = describe(error)
    assert (described["exc_type"], described["exc_message"], described["exc_module"]) == expected


@pytest.mark.parametrize("error", [Unprintable(object(), 1), ValueError(BadJson())])
def test_describing_an_exception_never_raises(error: Exception) -> None:
    json.dumps(describe(error))


def test_a_result_that_json_cannot_express_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match="type set"):
        success_meta("i", {1, 2})
    stored_failure = json.loads(failure_meta("i", EncodeError("an object of type set …")))
    assert stored_failure["result"]["exc_type"] == "EncodeError"


def message(**headers: Any) -> Message:
    return Message("i", "t", [1], {"a": 2}, {}, headers, {"priority": 3}, 4, None, None, "q", 2, b"")


def test_the_fields_of_a_run_are_those_of_its_message() -> None:
    context = Context.for_message(message(group="g", parent_id="p"), hostname="w1@host", queue="hipri")
    assert fields_of(context) == MetaFields("g", "p", [], None)
    context.children.append(task_child("c"))
    context.children.append(group_child("g", ["a", "b"]))
    assert fields_of(context).children == [
        [["c", None], None],
        [["g", None], [[["a", None], None], [["b", None], None]]],
    ]


def test_extended_results_say_who_ran_what() -> None:
    about = message(stamped_headers=["customer"], stamps={"customer": "acme", "other": 1})
    context = Context.for_message(about, hostname="w1@host", queue="hipri")
    assert fields_of(context, extended=True).extended == {
        "name": "t",
        "args": [1],
        "kwargs": {"a": 2},
        "worker": "w1@host",
        "retries": 4,
        "queue": "hipri",
        "stamped_headers": ["customer"],
        "customer": "acme",
    }


def test_extended_arguments_that_json_cannot_express_are_represented() -> None:
    fields = MetaFields(children=[], extended={"args": (pickle.loads(pickle.dumps({1})),)})
    assert json.loads(success_meta("i", None, fields))["args"] == "({1},)"


def test_a_meta_outside_of_a_run_has_no_children() -> None:
    assert json.loads(revoked_meta("i", "revoked"))["children"] is None
