"""Writing messages: a call becomes the envelope that a Celery producer would write, byte for byte in form and order.

Called by app.py for every publish and by successors.py for what follows a task. A usual message takes about 5 µs.
Reading is in codec.py, the meaning of each field in the protocol's description.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from . import compression as compressions
from . import serializers, typed_json
from .base64_text import to_base64
from .ids import new_id
from .reprs import short_repr
from .typed_json import quote

_NO_EMBED: Final = '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'

#: Headers that the fields of a message own; `headers=` cannot replace them.
RESERVED_HEADERS: Final = frozenset(
    {"lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id"}
    | {"parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting"}
    | {"stamped_headers", "stamps", "compression"}
)


def encode_task(
    task: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    task_id: str,
    queue: str,
    priority: int = 0,
    eta: str | None = None,
    expires: str | None = None,
    expiration_ms: int | None = None,
    retries: int = 0,
    group_id: str | None = None,
    group_index: int | None = None,
    root_id: str | None = None,
    parent_id: str | None = None,
    callbacks: Sequence[Mapping[str, Any]] | None = None,
    errbacks: Sequence[Mapping[str, Any]] | None = None,
    chain: Sequence[Mapping[str, Any]] | None = None,
    chord: Mapping[str, Any] | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    shadow: str | None = None,
    ignore_result: bool | None = False,
    replaced_task_nesting: int = 0,
    stamps: Mapping[str, Any] | None = None,
    headers: Mapping[str, Any] | None = None,
    properties: Mapping[str, Any] | None = None,
    reply_to: str = "",
    origin: str | None = None,
    argsrepr: str | None = None,
    kwargsrepr: str | None = None,
    serializer: str = "json",
    compression: str | None = None,
    delivery_tag: str | None = None,
) -> bytes:
    """Return the envelope of one protocol 2 task message.

    `eta` and `expires` are ISO 8601 text; `expiration_ms` repeats the latter as the milliseconds left. `headers` are
    added behind the standard ones, `properties` behind `reply_to`. Raises EncodeError for arguments that `serializer`
    cannot express, ConfigError for an unknown serializer or compression.
    """
    kwargs = kwargs or {}
    embed = _NO_EMBED
    if callbacks or errbacks or chain is not None or chord:
        parts = {"callbacks": callbacks or None, "errbacks": errbacks or None, "chain": chain, "chord": chord or None}
        embed = typed_json.dumps(parts)
    body, kind, encoding = _body(args, kwargs, embed, serializer)
    more = ""
    if headers:
        more = _members(headers)
    if compression is not None:
        method = compressions.content_type_of(compression)
        body = compressions.compress(body, method)
        more += f', "compression": {quote(method)}'
    quoted_id = quote(task_id)
    return (
        f'{{"body": "{to_base64(body)}", "content-encoding": "{encoding}", "content-type": "{kind}", '
        f'"headers": {{"lang": "py", "task": {quote(task)}, "id": {quoted_id}, "shadow": {_text(shadow)}, '
        f'"eta": {_text(eta)}, "expires": {_text(expires)}, "group": {_text(group_id)}, '
        f'"group_index": {_json(group_index)}, "retries": {retries}, '
        f'"timelimit": [{_json(time_limit)}, {_json(soft_time_limit)}], '
        f'"root_id": {quote(root_id or task_id)}, "parent_id": {_text(parent_id)}, '
        f'"argsrepr": {quote(short_repr(args) if argsrepr is None else argsrepr)}, '
        f'"kwargsrepr": {quote(short_repr(kwargs) if kwargsrepr is None else kwargsrepr)}, '
        f'"origin": {quote(origin or default_origin())}, "ignore_result": {_json(ignore_result)}, '
        f'"replaced_task_nesting": {replaced_task_nesting}, {_stamps(stamps)}{more}}}, '
        f'"properties": {{"correlation_id": {quoted_id}, "reply_to": {quote(reply_to)}'
        f'{_members(properties) if properties else ""}, "delivery_mode": 2, '
        f"{'' if expiration_ms is None else _expiration(expiration_ms)}"
        f'"delivery_info": {{"exchange": "", "routing_key": {quote(queue)}}}, "priority": {priority}, '
        f'"body_encoding": "base64", "delivery_tag": "{delivery_tag or new_id()}"}}}}'
    ).encode()


def default_origin() -> str:
    """Return this process as a producer is named on the wire, `gen<pid>@<host>`."""
    return _origin_of(os.getpid())


@lru_cache(maxsize=4)
def _origin_of(pid: int) -> str:
    return f"gen{pid}@{socket.gethostname()}"


def _body(args: Sequence[Any], kwargs: Mapping[str, Any], embed: str, serializer: str) -> tuple[bytes, str, str]:
    if serializer == "json":
        text = f"[{typed_json.dumps(args)}, {typed_json.dumps(kwargs)}, {embed}]"
        return text.encode("ascii"), "application/json", "utf-8"
    encoded = serializers.dumps((args, dict(kwargs), typed_json.loads(embed)), serializer)
    return encoded.data, encoded.content_type, encoded.content_encoding


def _text(value: str | None) -> str:
    return "null" if value is None else quote(value)


def _json(value: float | None) -> str:
    return "null" if value is None else typed_json.dumps(value)


def _members(table: Mapping[str, Any]) -> str:
    """The members of `table` as JSON, to be added behind others."""
    return ", " + typed_json.dumps(table)[1:-1]


def _stamps(stamps: Mapping[str, Any] | None) -> str:
    if not stamps:
        return '"stamped_headers": null, "stamps": {}'
    return f'"stamped_headers": {typed_json.dumps(list(stamps))}, "stamps": {typed_json.dumps(stamps)}'


def _expiration(milliseconds: int) -> str:
    return f'"expiration": "{milliseconds}", '
