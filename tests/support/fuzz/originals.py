"""The messages that get mutated: what Celery's producers wrote into our captures, and calls that our own encoder wrote.

Each comes with the queue's name of the fuzzed application in place of the capture's, nothing else is changed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from qworker.tasks.encoding import encode_task

from ..samples import SAMPLES

QUEUE = "fuzz"
_LOCK = "a1" * 20 + "-" + "b2" * 8  # in the form that qworker writes


@cache
def originals() -> tuple[bytes, ...]:
    """All of them, the same in every process."""
    captured = [text for path in sorted(SAMPLES.glob("*.json")) for text in _texts(json.loads(path.read_text("utf-8")))]
    return (*filter(_is_task, dict.fromkeys(text.encode() for text in captured)), *_ours(), *_protocol_1())


def _texts(value: Any) -> Iterator[str]:
    """Every text in a capture that may be an envelope."""
    if isinstance(value, str):
        if value.startswith("{"):
            yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _is_task(raw: bytes) -> bool:
    """Whether it is an envelope of a task: results, replies and events were captured as well."""
    try:
        message = json.loads(raw)
    except ValueError:
        return False
    if "body" not in message or "properties" not in message:
        return False
    return "task" in message["headers"] or b'"task"' in base64.b64decode(message["body"])


def _signature(task: str, *args: Any, **options: Any) -> dict[str, Any]:
    return {
        "task": task, "args": list(args), "kwargs": {}, "options": options, "subtask_type": None, "immutable": False,
    }  # fmt: skip


def _ours() -> list[bytes]:
    add, ident = _signature("wapp.add", 1, task_id="next-1"), _signature("wapp.ident", task_id="next-2")
    group = _signature("celery.group", task_id="group-1") | {"subtask_type": "group", "kwargs": {"tasks": [ident, add]}}
    chain = _signature("celery.chain") | {"subtask_type": "chain", "kwargs": {"tasks": [ident, add]}}

    def call(task: str, *args: Any, **options: Any) -> bytes:
        return encode_task(task, args, task_id=f"own-{task}", queue=QUEUE, **options)

    return [
        call("wapp.add", 1, 2, time_limit=50.0, soft_time_limit=40.0),
        call("wapp.ident", 1, chain=[ident, add]),
        call("wapp.ident", 1, chain=[group]),
        call("wapp.ident", 1, callbacks=[add]),
        call("wapp.ident", 1, callbacks=[add, ident, chain]),
        call("wapp.boom", errbacks=[_signature("wapp.errcb"), _signature("wapp.errcb1")], chain=[add]),
        call("wapp.flaky", 1, stamps={"customer": ["acme"]}),
        call("wapp.once", 1, chain=[add]),
        call("wapp.once", 1, callbacks=[ident]),
        call("wapp.ident", "x" * 3000, compression="gzip"),
        call("wapp.ident", {"a": [1.5, None, "ü"]}, compression="lzma"),
        call("wapp.ident", 1, eta="2020-01-01T00:00:00+00:00", expires="2040-01-01T00:00:00", expiration_ms=1),
        call("wapp.ident", 1, expires="2020-01-01T00:00:00"),
        call("wapp.ident", 1, serializer="yaml"),
        call("wapp.ident", 1, serializer="msgpack"),
        call("wapp.ident", 1, headers={"unique": "nonce", "qworker_checkpoint": [1]}),
        call("wapp.flaky", 1, headers={"unique": f"{_LOCK}-60000"}),
        call("wapp.ident", 1, chain=[add], headers={"unique": f"{_LOCK}-{'9' * 400}"}),
        call("wapp.ident", 1, headers={"unique": f"{_LOCK}-{'9' * 15}"}),
    ]


def _protocol_1() -> list[bytes]:
    body = {
        "task": "wapp.add", "id": "one-1", "args": [1, 2], "kwargs": {}, "retries": 0, "eta": None, "expires": None,
        "utc": True, "callbacks": [_signature("wapp.ident")], "errbacks": None, "timelimit": [None, None],
        "taskset": None, "chord": None,
    }  # fmt: skip
    flaky = body | {"task": "wapp.flaky", "args": [1], "callbacks": None, "id": "one-2", "taskset": "set-1"}
    hybrid = {"lang": "py", "task": "wapp.ident", "id": "one-3", "retries": 0}
    properties = {"delivery_info": {"exchange": "", "routing_key": QUEUE}, "body_encoding": "base64"}
    pairs = [({}, body), ({}, flaky), (hybrid, body)]
    return [
        json.dumps(
            {
                "body": base64.b64encode(json.dumps(content).encode()).decode(),
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "headers": headers,
                "properties": properties,
            }
        ).encode()
        for headers, content in pairs
    ]
