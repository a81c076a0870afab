"""What is not a proper message is refused with a reason, and with whatever identity it has."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from typing import Any

import pytest

from qworker import MessageError
from qworker.tasks.codec import Identity, decode, identify
from qworker.tasks.encoding import encode_task
from qworker.tasks.serializers import accepted_types

JSON = accepted_types(["json"])
GROUP = {"task": "celery.group", "subtask_type": "group"}


def envelope(content: Any = None, headers: Any = None, *, drop: tuple[str, ...] = (), **changes: Any) -> bytes:
    """A message of task `t` with id `i`, changed as asked."""
    text = json.dumps([[1], {}, {}] if content is None else content)
    whole: dict[str, Any] = {
        "body": base64.b64encode(text.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "t", "id": "i"} if headers is None else headers,
        "properties": {"body_encoding": "base64"},
        **changes,
    }
    return json.dumps({name: value for name, value in whole.items() if name not in drop}).encode()


def refused(raw: bytes, **options: Any) -> MessageError:
    with pytest.raises(MessageError) as caught:
        decode(raw, **{"accept": JSON, **options})
    return caught.value


@pytest.mark.parametrize("third", [{}, None, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
def test_the_smallest_message_is_read_without_delivery_tag_and_delivery_info(third: Any) -> None:
    message = decode(envelope([[1, 2], {"a": 3}, third]), accept=JSON)
    assert (message.id, message.task, message.args, message.kwargs) == ("i", "t", [1, 2], {"a": 3})
    assert (message.embed, message.queue, message.priority, message.retries) == ({}, "", 0, 0)


def test_a_time_limit_that_is_too_long_for_any_clock_is_none() -> None:
    assert decode(envelope(headers={"task": "t", "id": "i", "timelimit": [10**400, 5]}), accept=JSON).time_limits == (
        None,
        5,
    )


@pytest.mark.parametrize("priority", [-1, 256, 10**30, True, "5", None])
def test_a_priority_that_no_broker_knows_is_none(priority: Any) -> None:
    assert decode(envelope(properties={"body_encoding": "base64", "priority": priority}), accept=JSON).priority == 0


def test_content_type_and_encoding_may_be_missing() -> None:
    assert decode(envelope(drop=("content-type", "content-encoding")), accept=JSON).args == [1]


def test_a_body_may_be_plain_text() -> None:
    raw = envelope(body='[["é"], {}, {}]', properties={})
    assert decode(raw, accept=JSON).args == ["é"]


def test_a_body_may_be_in_another_character_set() -> None:
    body = base64.b64encode('[["é"], {}, {}]'.encode("latin-1")).decode()
    assert decode(envelope(**{"body": body, "content-encoding": "latin-1"}), accept=JSON).args == ["é"]


def test_base64_may_be_broken_into_lines() -> None:
    whole = json.loads(envelope())
    whole["body"] = whole["body"][:7] + "\r\n" + whole["body"][7:]
    assert decode(json.dumps(whole).encode(), accept=JSON).args == [1]


def test_an_exhausted_chain_stays_one() -> None:
    assert decode(envelope([[], {}, {"chain": []}]), accept=JSON).embed == {"chain": []}


def test_protocol_1_with_headers_of_protocol_2_is_read() -> None:
    body = {"task": "other", "id": "x", "args": [1], "kwargs": {"b": 2}, "retries": 3, "taskset": "g"}
    message = decode(envelope(body, {"task": "t", "id": "i"}), accept=JSON)
    assert (message.task, message.id, message.args, message.kwargs) == ("t", "i", [1], {"b": 2})
    assert (message.retries, message.headers["group"], message.protocol) == (3, "g", 1)


def test_an_object_with_nothing_of_protocol_1_is_no_call_without_arguments() -> None:
    error = refused(envelope({"a": 1}, {"task": "t", "id": "i"}))
    assert (error.reason, error.task_id, error.task) == ("bad_body_shape", "i", "t")
    assert refused(envelope({}, {"task": "t", "id": "i"})).reason == "bad_body_shape"


def test_protocol_1_times_are_in_utc_only_when_it_says_so() -> None:
    body = {"task": "t", "id": "i", "args": [], "kwargs": {}, "eta": "2030-01-01T00:00:00"}
    there = decode(envelope({**body, "utc": False}, {}), accept=JSON, timezone="Europe/Berlin").eta
    utc = decode(envelope({**body, "utc": True}, {}), accept=JSON, timezone="Europe/Berlin").eta
    assert utc is not None
    assert there == utc - 3600


@pytest.mark.parametrize("text", ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00.000+00:00", "2030-01-01 01:00:00+01:00"])
def test_times_of_other_producers_are_read(text: str) -> None:
    raw = envelope(headers={"task": "t", "id": "i", "eta": text, "expires": text})
    message = decode(raw, accept=JSON)
    assert message.eta == message.expires == 1893456000.0


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([30, 20], (30, 20)),
        ([None, 1.5], (None, 1.5)),
        (None, (None, None)),
        ([1], (None, None)),
        (["x", True], (None, None)),
    ],
)
def test_time_limits_are_hard_and_soft(limits: Any, expected: tuple[float | None, float | None]) -> None:
    raw = envelope(headers={"task": "t", "id": "i", "timelimit": limits})
    assert decode(raw, accept=JSON).time_limits == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"x"',
        b'{"headers": []}',
        b'{"headers": {}, "properties": 3}',
        b'{"a": 1} trailing',
        b"9" * 5000,
    ],
)
def test_an_envelope_that_is_none_is_refused(raw: bytes) -> None:
    assert refused(raw).reason == "undecodable_envelope"


@pytest.mark.parametrize("cut", range(0, 300, 7))
def test_a_truncated_envelope_is_refused(cut: int) -> None:
    raw = envelope()
    assert refused(raw[: cut * len(raw) // 300]).reason == "undecodable_envelope"


NAMED: list[tuple[str, bytes]] = [
    ("undecodable_body", envelope(body="!!!")),
    ("undecodable_body", envelope(body="W1sx")),
    ("undecodable_body", envelope(body=json.loads(envelope())["body"][:-3])),
    ("undecodable_body", envelope(body=None)),
    ("undecodable_body", envelope(body=[1])),
    ("undecodable_body", envelope([[{"__type__": "tree", "__value__": 1}], {}, {}])),
    ("undecodable_body", envelope([[{"__type__": "decimal", "__value__": "x"}], {}, {}])),
    ("undecodable_body", envelope([[{"__type__": "bytes", "__value__": 5}], {}, {}])),
    ("undecodable_body", envelope([[{"__type__": ["bytes"], "__value__": "x"}], {}, {}])),
    ("undecodable_body", envelope(**{"content-encoding": "utf-16"})),
    ("unknown_encoding", envelope(**{"content-encoding": "martian"})),
    ("unknown_encoding", envelope(**{"content-encoding": ["utf-8"]})),
    ("unknown_encoding", envelope(**{"content-encoding": "utf\x00-8"})),
    ("unknown_encoding", envelope(**{"content-encoding": "\ud800"})),
    ("unknown_encoding", envelope(**{"content-encoding": "undefined"})),
    ("unknown_encoding", envelope(**{"content-encoding": "punycode"})),
    ("unknown_encoding", envelope(properties={"body_encoding": "hex"})),
    ("refused_content_type", envelope(**{"content-type": "application/x-python-serialize"})),
    ("refused_content_type", envelope(**{"content-type": ["application/json"]})),
    ("unknown_compression", envelope(headers={"task": "t", "id": "i", "compression": "application/x-magic"})),
    ("undecodable_body", envelope(headers={"task": "t", "id": "i", "compression": "application/x-gzip"})),
    ("bad_eta", envelope(headers={"task": "t", "id": "i", "eta": "tomorrow"})),
    ("bad_eta", envelope(headers={"task": "t", "id": "i", "eta": 20300101})),
    ("bad_expires", envelope(headers={"task": "t", "id": "i", "expires": {}})),
    ("bad_header", envelope(headers={"task": "t", "id": "i", "retries": "many"})),
    ("bad_header", envelope(headers={"task": "t", "id": "i", "retries": -1})),
    ("bad_header", envelope(headers={"task": "t", "id": "i", "retries": True})),
    ("bad_body_shape", envelope([[1], {}])),
    ("bad_body_shape", envelope([1, {}, {}])),
    ("bad_body_shape", envelope([[1], [], {}])),
    ("bad_body_shape", envelope([[1], {}, []])),
    ("bad_body_shape", envelope([None, {}, {}])),
    ("bad_body_shape", envelope("text")),
    ("bad_body_shape", envelope([[1], {}, {"callbacks": 5}])),
    ("bad_body_shape", envelope([[1], {}, {"chain": [{"args": []}]}])),
    ("bad_body_shape", envelope([[1], {}, {"errbacks": [{"task": "t", "args": 3}]}])),
    ("bad_body_shape", envelope([[1], {}, {"chord": "x"}])),
    ("bad_body_shape", envelope([[1], {}, {"chain": [{"task": "celery.group", "subtask_type": {}}]}])),
    ("bad_body_shape", envelope([[1], {}, {"chain": [{"task": "celery.chain", "subtask_type": "chain"}]}])),
    ("bad_body_shape", envelope([[1], {}, {"chain": [GROUP | {"kwargs": {"tasks": 5}}]}])),
    ("bad_body_shape", envelope([[1], {}, {"callbacks": [GROUP | {"kwargs": {"tasks": [{"task": 1}]}}]}])),
    ("bad_body_shape", envelope([[1], {}, {"chain": [{"task": "t", "options": {"queue": "\ud800"}}]}])),
    ("bad_body_shape", envelope([[1], {}, {"chain": [{"task": "t", "options": {"task_id": 5}}]}])),
]


@pytest.mark.parametrize(("reason", "raw"), NAMED)
def test_a_message_that_cannot_run_is_refused_under_its_name(reason: str, raw: bytes) -> None:
    error = refused(raw)
    assert (error.reason, error.task_id, error.task) == (reason, "i", "t")
    assert str(error)


@pytest.mark.parametrize(
    ("reason", "headers", "task_id", "task"),
    [
        ("missing_header", {"task": "t"}, None, "t"),
        ("missing_header", {"id": "i"}, "i", None),
        ("missing_header", {"task": None, "id": "i"}, "i", None),
        ("missing_header", {"task": "", "id": "i"}, "i", None),
        ("bad_id", {"task": "t", "id": None}, None, "t"),
        ("bad_id", {"task": "t", "id": ""}, None, "t"),
        ("bad_id", {"task": "t", "id": 5}, None, "t"),
        ("bad_id", {"task": "t", "id": ["i"]}, None, "t"),
        ("bad_id", {"task": "t", "id": "\ud800"}, None, "t"),
    ],
)
def test_a_message_without_proper_identity_is_refused(
    reason: str, headers: dict[str, Any], task_id: str | None, task: str | None
) -> None:
    error = refused(envelope(headers=headers))
    assert (error.reason, error.task_id, error.task) == (reason, task_id, task)


@pytest.mark.parametrize(
    ("reason", "body"),
    [("missing_header", {"args": [1]}), ("missing_header", {"task": "t"}), ("bad_id", {"task": "t", "id": 3})],
)
def test_a_protocol_1_body_without_identity_is_refused(reason: str, body: dict[str, Any]) -> None:
    assert refused(envelope(body, {})).reason == reason


def test_a_protocol_1_message_that_is_refused_keeps_its_identity() -> None:
    error = refused(envelope({"task": "t", "id": "i", "args": 5}, {}))
    assert (error.reason, error.task_id, error.task) == ("bad_body_shape", "i", "t")


def test_nesting_beyond_what_python_follows_is_refused() -> None:
    deep = "[" * 200_000 + "]" * 200_000
    body = base64.b64encode(f"[[{deep}], {{}}, {{}}]".encode()).decode()
    assert (refused(envelope(body=body)).reason, refused(deep.encode()).reason) == ("too_deep", "too_deep")
    assert refused(envelope(body=body)).task_id == "i"


def test_a_message_above_the_limit_is_refused_by_its_size_but_named() -> None:
    raw = envelope([["x" * 5000], {}, {}])
    error = refused(raw, max_bytes=4096)
    assert (error.reason, error.task_id, error.task) == ("oversize", "i", "t")
    assert decode(raw, accept=JSON, max_bytes=len(raw)).id == "i"


@pytest.mark.parametrize("size", [10_000, 50_000_000])
def test_a_body_that_unpacks_beyond_the_limit_is_refused_without_being_unpacked(size: int) -> None:
    bomb = base64.b64encode(zlib.compress(b'[["' + b"x" * size + b'"], {}, {}]')).decode()
    raw = envelope(headers={"task": "t", "id": "i", "compression": "application/x-gzip"}, body=bomb)
    assert refused(raw, max_bytes=max(len(raw), 9_000)).reason == "oversize"


def test_pickle_is_not_even_looked_at_unless_accepted() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return sys.exit, (3,)

    import pickle

    body = base64.b64encode(pickle.dumps(Bomb())).decode()
    raw = envelope(**{"body": body, "content-type": "application/x-python-serialize", "content-encoding": "binary"})
    assert refused(raw).reason == "refused_content_type"


def test_arguments_whose_names_are_no_text_are_refused() -> None:
    import pickle

    body = base64.b64encode(pickle.dumps(([], {1: 2}, {}))).decode()
    raw = envelope(**{"body": body, "content-type": "application/x-python-serialize", "content-encoding": "binary"})
    assert refused(raw, accept=accepted_types(["pickle"])).reason == "bad_body_shape"


def test_identity_is_found_without_parsing_the_body() -> None:
    assert identify(envelope()) == Identity("i", "t")
    assert identify(envelope().replace(b'": ', b'":')) == Identity("i", "t")
    assert identify(envelope(headers={}, properties={"correlation_id": "c"})) == Identity("c", None)


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"headers": {', b'{"headers": {"id": 5, "task": []}}', b"\xff" * 50])
def test_identity_of_rubbish_is_nothing(raw: bytes) -> None:
    assert identify(raw) == Identity(None, None)


def test_text_that_looks_like_headers_inside_an_argument_is_no_identity() -> None:
    raw = envelope(body='"headers": {"id": "wrong", "task": "wrong"}', properties={})
    assert identify(raw) == Identity("i", "t")


@pytest.mark.parametrize("bad", ["a\nb", "a\0b", "\x1b[31m", "x" * 1001, "\u2028"])
def test_an_id_that_would_forge_log_lines_or_break_titles_is_refused(bad: str) -> None:
    envelope = json.loads(encode_task("t", task_id="id", queue="q"))
    envelope["headers"]["id"] = bad
    with pytest.raises(MessageError) as caught:
        decode(json.dumps(envelope).encode(), accept=frozenset({"application/json"}))
    assert caught.value.reason == "bad_id"
