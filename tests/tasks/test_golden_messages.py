"""Every message that a Celery producer wrote is read, and written again byte for byte."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from qworker import App
from qworker.tasks.codec import decode
from qworker.tasks.encoding import encode_task
from qworker.tasks.message import Message
from qworker.tasks.moments import parse_moment
from qworker.tasks.publishing import prepare
from qworker.tasks.serializers import accepted_types

from support.samples import load, published, without_tag

ALL_TYPES = accepted_types(["json", "yaml", "msgpack", "pickle"])
WRITTEN = [pytest.param(raw, id=call[:60]) for number in ("01", "02") for call, raw in published(number)]


def read(raw: bytes) -> Message:
    return decode(raw, accept=ALL_TYPES)


def written_again(raw: bytes) -> bytes:
    """The message in `raw`, through `decode` and `encode_task`."""
    message = read(raw)
    headers, properties = message.headers, message.properties
    standard = {"lang", "task", "id", "eta", "expires", "group", "timelimit", "stamped_headers", "compression"}
    passed = {"shadow", "group_index", "retries", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"}
    passed |= {"ignore_result", "replaced_task_nesting", "stamps"}
    expiration = properties.get("expiration")
    return encode_task(
        message.task,
        tuple(message.args),
        message.kwargs,
        task_id=message.id,
        queue=message.queue,
        priority=message.priority,
        eta=headers["eta"],
        expires=headers["expires"],
        expiration_ms=int(expiration) if expiration else None,
        group_id=headers["group"],
        time_limit=message.time_limits[0],
        soft_time_limit=message.time_limits[1],
        callbacks=message.embed.get("callbacks"),
        errbacks=message.embed.get("errbacks"),
        chain=message.embed.get("chain"),
        chord=message.embed.get("chord"),
        headers={name: value for name, value in headers.items() if name not in standard | passed},
        reply_to=properties["reply_to"],
        serializer=json.loads(raw)["content-type"],
        compression=headers.get("compression"),
        delivery_tag=properties["delivery_tag"],
        **{name: headers[name] for name in passed},
    )


def test_the_captures_hold_messages() -> None:
    assert len(WRITTEN) > 40


@pytest.mark.parametrize("raw", WRITTEN)
def test_a_celery_message_is_written_again_byte_for_byte(raw: bytes) -> None:
    again = written_again(raw)
    if json.loads(raw)["headers"].get("compression") == "application/x-lzma":
        # Two lzma libraries need not pack alike.
        assert read(again).args == read(raw).args
    else:
        assert again == raw


@pytest.mark.parametrize("raw", WRITTEN)
def test_a_celery_message_says_the_same_to_us(raw: bytes) -> None:
    envelope, message = json.loads(raw), read(raw)
    assert message.id == envelope["headers"]["id"]
    assert message.task == envelope["headers"]["task"]
    assert message.queue == envelope["properties"]["delivery_info"]["routing_key"]
    assert message.retries == 0
    assert message.protocol == 2
    assert message.origin_raw == raw


def test_the_wire_types_arrive_as_python_types() -> None:
    raw = next(raw for call, raw in published("01") if call.startswith("ident.delay(datetime"))
    *typed, not_a_number = read(raw).args
    assert [type(value).__name__ for value in typed] == (
        ["datetime", "datetime", "date", "time", "Decimal", "UUID", "bytes", "bytes", "list"]
    )
    assert typed[0] == datetime(2030, 1, 2, 3, 4, 5, 678, timezone.utc)
    assert typed[7] == b"\xff\x00"
    assert not_a_number != not_a_number


def test_countdown_and_expires_are_moments() -> None:
    raw = next(raw for call, raw in published("01") if "countdown=30, expires=60" in call)
    message = read(raw)
    assert message.eta == parse_moment("2026-11-21T00:31:45.364848+00:00", "UTC")
    assert message.expires is not None
    assert message.expires - message.eta == 30


def test_an_eta_without_offset_is_in_the_applications_time_zone() -> None:
    raw = next(raw for call, raw in published("01") if call.endswith("# naive"))
    in_utc = decode(raw, accept=ALL_TYPES).eta
    in_berlin = decode(raw, accept=ALL_TYPES, timezone="Europe/Berlin").eta
    assert in_utc is not None
    assert in_berlin == in_utc - 3600


def test_protocol_1_is_read() -> None:
    ((_, raw),) = published("03")
    message = read(raw)
    body = load("03")[0]["published"][0]["decoded_body"]
    assert (message.protocol, message.id, message.task) == (1, body["id"], "wapp.add")
    assert (message.args, message.kwargs, message.embed) == ([1, 2], {}, {})
    assert message.eta == parse_moment(body["eta"], "UTC")


UTC2 = timezone(timedelta(hours=2))
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("add.delay(1, 2)", {}),
    ("add.apply_async((1,2), countdown=30, expires=60)", {"countdown": 30, "expires": 60}),
    ("add.apply_async((1,2), eta=datetime(2030,1,2,3,4,5))  # naive", {"eta": datetime(2030, 1, 2, 3, 4, 5)}),
    (
        "add.apply_async((1,2), eta=datetime(2030,1,2,3,4,5,tzinfo=+02:00), expires=datetime(2031,1,1,tzinfo=utc))",
        {"eta": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC2), "expires": datetime(2031, 1, 1, tzinfo=timezone.utc)},
    ),
    ("add.apply_async((1,2), time_limit=30, soft_time_limit=20)", {"time_limit": 30, "soft_time_limit": 20}),
    ("add.apply_async((1,2), priority=0)", {"priority": 0}),
    ("add.apply_async((1,2), priority=4)", {"priority": 4}),
    (
        "add.apply_async((1,2), queue='high', shadow='my.shadow', headers={'x-mine':'v'})",
        {"queue": "high", "shadow": "my.shadow", "headers": {"x-mine": "v"}},
    ),
    ("add.apply_async((1,2), ignore_result=True)", {"ignore_result": True}),
    ("add.apply_async((1,2), serializer='pickle')", {"serializer": "pickle"}),
    ("add.apply_async((1,2), serializer='yaml')", {"serializer": "yaml"}),
    ("add.apply_async((1,2), serializer='msgpack')", {"serializer": "msgpack"}),
    ("add.apply_async((1,2), compression='gzip')", {"compression": "gzip"}),
    ("add.apply_async((1,2), compression='bzip2')", {"compression": "bzip2"}),
]


@pytest.mark.parametrize(("call", "options"), CALLS, ids=[call for call, _ in CALLS])
def test_the_same_call_gives_the_same_message(call: str, options: dict[str, Any]) -> None:
    raw = next(raw for said, raw in published("01") if said == call)
    headers, properties = json.loads(raw)["headers"], json.loads(raw)["properties"]
    if "countdown" in options:
        now = parse_moment(headers["eta"], "UTC") - 30
    else:
        now = parse_moment(headers["expires"] or "2026-11-21", "UTC") - int(properties.get("expiration", 0)) / 1000
    prepared = prepare(
        App("wapp"),
        "wapp.add",
        (1, 2),
        {},
        now=now,
        task_id=headers["id"],
        origin=headers["origin"],
        reply_to=properties["reply_to"],
        **{"ignore_result": False, **options},
    )
    assert without_tag(prepared.envelope.raw) == without_tag(raw)
    assert prepared.envelope.due == read(raw).eta
