"""Writing messages: a call becomes the envelope that a Celery producer would write, byte for byte in form and order.

Called by app.py for every publish and by successors.py for what follows a task. A usual message takes about 5 µs.
Reading is in codec.py, the meaning of each field in the protocol's description.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast

from . import compression as compressions
from . import serializers, typed_json
from .base64_text import to_base64
from .ids import dated_id, new_id
from .message import Message
from .moments import to_iso
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
    published: float | None = None,
) -> bytes:
    """Return the envelope of one protocol 2 task message.

    `eta` and `expires` are ISO 8601 text; `expiration_ms` repeats the latter as the milliseconds left. `headers` are
    added behind the standard ones, `properties` behind `reply_to`. The `delivery_tag` tells when the message was
    `published` (seconds since the epoch), if that is given. Raises EncodeError for arguments that `serializer`
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
        f'"body_encoding": "base64", "delivery_tag": "{delivery_tag or _tag(published)}"}}}}'
    ).encode()


def _tag(published: float | None) -> str:
    return new_id() if published is None else dated_id(published)


def default_origin() -> str:
    """Return this process as a producer is named on the wire, `gen<pid>@<host>`."""
    return _origin_of(os.getpid())


@lru_cache(maxsize=4)
def _origin_of(pid: int) -> str:
    return f"gen{pid}@{os.uname().nodename}"


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


def encode_retry(
    message: Message,
    *,
    retries: int,
    eta: float | None,
    now: float,
    queue: str | None = None,
    priority: int | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    expires: float | None = None,
    delivery_tag: str | None = None,
) -> bytes:
    """Return the envelope of the next attempt of `message`: the same id, body, workflow and limits.

    `eta`, `expires` and `now` are seconds since the epoch; what is None stays as it is. `changes` are further
    headers. The body is copied as it came, unless `args` or `kwargs` replace it; a protocol 1 message becomes one of
    protocol 2.
    """
    envelope = _as_protocol_2(message, now)
    headers, properties = envelope["headers"], envelope.get("properties") or {}
    if args is not None or kwargs is not None:
        _replace_body(
            envelope, message, message.args if args is None else args, message.kwargs if kwargs is None else kwargs
        )
    elif "body_encoding" not in properties:
        envelope["body"] = to_base64(envelope["body"].encode())
    headers.pop("redelivered", None)
    headers |= {"eta": None if eta is None else to_iso(eta), "retries": retries, "parent_id": message.id}
    headers["root_id"] = headers.get("root_id") or message.id
    headers.update(changes or {})
    expires = message.expires if expires is None else expires
    if expires is not None and expires != message.expires:
        headers["expires"] = to_iso(expires)
    envelope["properties"] = _own_properties(properties, message.id, headers.get("origin")) | {
        "delivery_mode": 2,
        **({} if expires is None else {"expiration": str(max(0, int((expires - now) * 1000)))}),
        "delivery_info": {"exchange": "", "routing_key": queue or message.queue},
        "priority": message.priority if priority is None else priority,
        "body_encoding": "base64",
        "delivery_tag": delivery_tag or dated_id(now),
    }
    return typed_json.dumps(envelope).encode()


def _as_protocol_2(message: Message, now: float) -> dict[str, Any]:
    if message.protocol == 2:
        return cast("dict[str, Any]", typed_json.loads_plain(message.origin_raw.decode()))
    headers, embed = message.headers, message.embed
    hard, soft = message.time_limits
    reply_to = message.properties.get("reply_to")
    raw = encode_task(
        message.task,
        message.args,
        message.kwargs,
        task_id=message.id,
        queue=message.queue,
        expires=None if message.expires is None else to_iso(message.expires),
        group_id=message.text("group"),
        group_index=headers.get("group_index"),
        callbacks=embed.get("callbacks"),
        errbacks=embed.get("errbacks"),
        chord=embed.get("chord"),
        time_limit=hard,
        soft_time_limit=soft,
        ignore_result=None,
        reply_to=reply_to if isinstance(reply_to, str) else "",
    )
    return cast("dict[str, Any]", typed_json.loads_plain(raw.decode()))


def _replace_body(envelope: dict[str, Any], message: Message, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    headers = envelope["headers"]
    embed = {name: message.embed.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
    kind = envelope.get("content-type") or "application/json"
    encoded = serializers.dumps((tuple(args), dict(kwargs), embed), kind)
    data = encoded.data
    if headers.get("compression"):
        data = compressions.compress(data, headers["compression"])
    envelope["body"] = to_base64(data)
    envelope["content-encoding"] = encoded.content_encoding
    headers["argsrepr"], headers["kwargsrepr"] = short_repr(tuple(args)), short_repr(dict(kwargs))


def _own_properties(properties: Mapping[str, Any], task_id: str, origin: Any) -> dict[str, Any]:
    """What of a message's properties stays through a retry, in Celery's order, `origin` behind `reply_to`."""
    kept = {"correlation_id": properties.get("correlation_id", task_id), "reply_to": properties.get("reply_to", "")}
    others = {name: value for name, value in properties.items() if name not in _TRANSPORTS_OWN and name not in kept}
    if origin is not None:
        kept["origin"] = origin
    return kept | others


_TRANSPORTS_OWN: Final = frozenset(
    {"delivery_mode", "expiration", "delivery_info", "priority", "body_encoding", "delivery_tag"}
)
