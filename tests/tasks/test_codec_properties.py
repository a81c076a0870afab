"""Whatever the bytes are: a message, or a MessageError. Whatever can be said in wire JSON arrives as it was."""

from __future__ import annotations

import base64
import json
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qworker import MessageError
from qworker.tasks import typed_json
from qworker.tasks.codec import decode, identify
from qworker.tasks.encoding import encode_task
from qworker.tasks.message import Message
from qworker.tasks.serializers import accepted_types

from support.samples import published

ACCEPT = accepted_types(["json", "yaml", "msgpack"])
SAMPLES = [raw for number in ("01", "02", "03") for _, raw in published(number)]
JSON_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
ANY_JSON = st.recursive(
    JSON_LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TYPED_LEAVES = (
    JSON_LEAVES
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(timezone.utc))
    | st.dates()
    | st.times()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
TYPED = st.recursive(
    TYPED_LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def read_or_refused(raw: bytes) -> Message | MessageError:
    """What `decode` says; anything else that it raises fails the test."""
    try:
        return decode(raw, accept=ACCEPT, max_bytes=1_000_000)
    except MessageError as error:
        return error


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(raw: bytes) -> None:
    assert isinstance(read_or_refused(raw), MessageError)
    identify(raw)


@given(st.sampled_from(SAMPLES), st.data())
def test_a_damaged_message_is_a_message_or_refused(raw: bytes, data: st.DataObject) -> None:
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_or_refused(bytes(damaged))
    identify(bytes(damaged))


@given(ANY_JSON, ANY_JSON, ANY_JSON)
def test_any_json_in_the_right_places_is_a_message_or_refused(body: Any, headers: Any, properties: Any) -> None:
    text = base64.b64encode(json.dumps(body).encode()).decode()
    for extra in (headers, {"task": "t", "id": "i", **(headers if isinstance(headers, dict) else {})}):
        envelope = {"body": text, "headers": extra, "properties": properties, "content-type": "application/json"}
        read_or_refused(json.dumps(envelope).encode())
        read_or_refused(json.dumps({**envelope, "properties": {"body_encoding": "base64"}}).encode())


@given(st.sampled_from(["eta", "expires", "retries", "timelimit", "compression", "id", "task"]), ANY_JSON)
def test_any_value_of_a_header_is_taken_or_refused(name: str, value: Any) -> None:
    envelope = json.loads(SAMPLES[0])
    envelope["headers"][name] = value
    found = read_or_refused(json.dumps(envelope).encode())
    if isinstance(found, Message):
        assert found.time_limits


@given(TYPED)
def test_typed_json_arrives_as_it_was(value: Any) -> None:
    assert typed_json.loads(typed_json.dumps(value)) == value


@given(TYPED)
def test_the_fast_encoder_writes_what_the_standard_one_writes(value: Any) -> None:
    assert typed_json.dumps(value) == json.dumps(value, default=typed_json._encode_other)


@settings(max_examples=50)
@given(
    st.lists(TYPED, max_size=3),
    st.dictionaries(st.text(), TYPED, max_size=3),
    st.sampled_from([None, "gzip", "bzip2", "lzma"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=1000),
    st.integers(0, 9),
)
def test_a_call_arrives_as_it_was_made(
    args: list[Any], kwargs: dict[str, Any], compression: str | None, name: str, priority: int
) -> None:
    raw = encode_task(name, args, kwargs, task_id=name, queue=name, priority=priority, compression=compression)
    message = decode(raw, accept=ACCEPT)
    assert (message.task, message.id, message.queue, message.priority) == (name, name, name, priority)
    assert (message.args, message.kwargs) == (args, kwargs)
    assert identify(raw) == (name, name)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2030, 1, 2, 3, 4, 5, 678, timezone.utc),
        date(2030, 1, 2),
        time(3, 4, 5),
        Decimal("1.50"),
        UUID(int=5),
        b"abc",
        b"\xff\x00",
        float("inf"),
        {"__type__": "text"},
        {"__type__": 1, "__value__": 2, "more": 3},
    ],
)
def test_each_type_arrives_as_it_was(value: Any) -> None:
    assert typed_json.loads(typed_json.dumps([value])) == [value]


def test_a_spelling_of_the_marker_with_escapes_counts_as_well() -> None:
    assert typed_json.loads('{"\\u005f_type__": "bytes", "__value__": "a"}') == b"a"


def test_a_tuple_arrives_as_a_list_and_an_object_as_its_own_json() -> None:
    class Point:
        def __json__(self) -> list[int]:
            return [1, 2]

    assert typed_json.loads(typed_json.dumps(((1,), Point()))) == [[1], [1, 2]]


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, [{"a": {1}}]])
def test_what_has_no_rule_cannot_be_sent(value: Any) -> None:
    with pytest.raises(typed_json.EncodeError, match="cannot be put on the wire"):
        typed_json.dumps(value)


def test_a_circle_cannot_be_sent() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(typed_json.EncodeError, match="nested too deeply"):
        typed_json.dumps(circle)
