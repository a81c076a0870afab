"""Envelopes for transport tests: as a Celery producer writes them, and as it never would."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from qworker.transports import Envelope


def envelope(number: int = 0, queue: str = "hipri", *, priority: int = 0, **rest: Any) -> Envelope:
    """An ordinary task message for `queue`; `rest` goes to Envelope (due, front)."""
    return Envelope(queue, raw_message(number, queue, priority=priority), priority, **rest)


def envelopes(count: int, queue: str = "hipri", *, start: int = 0, **rest: Any) -> list[Envelope]:
    """Ordinary task messages with the numbers from `start`."""
    return [envelope(number, queue, **rest) for number in range(start, start + count)]


def raw_message(number: int, queue: str, *, priority: int = 0) -> bytes:
    """The JSON of protocol 2, keys in Celery's order."""
    task_id = str(uuid.uuid4())
    body = base64.b64encode(json.dumps([[number], {}, {"callbacks": None, "errbacks": None}]).encode()).decode()
    message = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "shop.note", "id": task_id, "retries": 0, "argsrepr": f"({number},) {{ü}}"},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": priority,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(message).encode()


def number_of(raw: bytes) -> int:
    """The number that `raw_message` put into the body."""
    body = json.loads(base64.b64decode(json.loads(raw)["body"]))
    return int(body[0][0])


def numbers_of(deliveries: Any) -> list[int]:
    """The numbers of deliveries, envelopes or dead letters, in their order."""
    return [number_of(delivery.raw) for delivery in deliveries]


# What a careless producer, another program or a broken disk may leave in a queue. None of it may get lost or harm
# others.
STRANGE: dict[str, bytes] = {
    "empty": b"",
    "not json": b"hello",
    "truncated": raw_message(1, "hipri")[:200],
    "number": b"5",
    "null": b"null",
    "array": b"[1, 2]",
    "empty object": b"{}",
    "no delivery_tag": json.dumps(
        {"body": "", "headers": {"id": "a"}, "properties": {"delivery_info": {"exchange": "", "routing_key": "hipri"}}}
    ).encode(),
    "no delivery_info": json.dumps({"body": "", "headers": {"id": "b"}, "properties": {"delivery_tag": "t"}}).encode(),
    "no properties": json.dumps({"body": "", "headers": {"id": "c"}}).encode(),
    "headers are a list": json.dumps({"body": "", "headers": [], "properties": {"delivery_info": {}}}).encode(),
    "compact": json.dumps(json.loads(raw_message(2, "hipri")), separators=(",", ":")).encode(),
    "other key order": json.dumps(dict(reversed(list(json.loads(raw_message(3, "hipri")).items())))).encode(),
    "trailing newline": raw_message(4, "hipri") + b"\n",
    "deeply nested": b'{"body": ' + b"[" * 5000 + b"]" * 5000 + b', "headers": {}}}',
    "nul bytes": b"\x00\x01" * 50 + b"\x00",
    "not utf-8": b'{"body": "\xff\xfe", "headers": {"id": "\xc3\x28"}}',
    "looks like an entry": b'{"body": "x", "properties": {}}, "", "other"]',
    "a tag of ours": b'{"body": "0000-1:0:9:hipri", "headers": {}, "properties": {"delivery_tag": "a:0:1:hipri"}}',
    "newlines": b"\n\n{}\r\n\n",
}
