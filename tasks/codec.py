"""Reading messages: the envelope that came from the broker becomes a `Message`, or a MessageError that says why not.

Called by a child for every message (execute.py), hence measured: a usual 935-byte message takes about 5.5 µs, of which
3.7 are the JSON parser's. Whatever the bytes are, nothing but MessageError comes out. Protocol 2, protocol 1 and the
mixture of both are read; `delivery_tag` and `delivery_info` are not needed. Writing is in encoding.py.
"""

from __future__ import annotations

import binascii
import re
from typing import Any, Final, NamedTuple

from ..core.errors import ConfigError, MessageError
from . import compression, serializers, typed_json
from .base64_text import from_base64
from .message import (
    BAD_BODY_SHAPE,
    BAD_ETA,
    BAD_EXPIRES,
    BAD_HEADER,
    BAD_ID,
    MISSING_HEADER,
    OVERSIZE,
    PAYLOAD_MISSING,
    REFUSED_CONTENT_TYPE,
    TOO_DEEP,
    UNDECODABLE_BODY,
    UNDECODABLE_ENVELOPE,
    UNKNOWN_COMPRESSION,
    UNKNOWN_ENCODING,
    Message,
)
from .moments import parse_moment
from .typed_json import DecodeError

_JSON: Final = "application/json"
_NO_EMBED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
# An unescaped quote ends a JSON string, so neither of these can stand inside one.
_HEADERS: Final = re.compile(rb'"headers"\s*:\s*\{')
_PROPERTIES: Final = re.compile(rb'"properties"\s*:\s*\{')
_MOST_NAME_CHARS: Final = 1000
_PLAIN_NAME: Final = re.compile(r"[\x20-\x7e]{1,255}").fullmatch
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]").search
_MOST_HEADER_BYTES: Final = 1024 * 1024
_PROTOCOL_1_MARKS: Final = frozenset({"task", "args", "kwargs"})
_BODY_FIELDS: Final = ("task", "id", "group", "group_index", "retries", "eta", "expires", "timelimit")


def decode(raw: bytes, *, accept: frozenset[str], timezone: str = "UTC", max_bytes: int = 64 * 1024 * 1024) -> Message:
    """Return the message in `raw`.

    `accept` holds content types (`serializers.accepted_types`), `timezone` is where an `eta` without an offset is at
    home, `max_bytes` bounds `raw` and what its body unpacks to. Raises MessageError, with `task_id` and `task` as far
    as they could be read; its `reason` is a constant of message.py.
    """
    if len(raw) > max_bytes:
        raise MessageError(OVERSIZE, f"{len(raw)} bytes are more than {max_bytes}", **identify(raw)._asdict())
    try:
        envelope = _open(raw)
    except MessageError as error:
        error.task_id, error.task = identify(raw)
        raise
    headers, properties = _table(envelope, "headers"), _table(envelope, "properties")
    try:
        return _message(raw, envelope, headers, properties, accept, timezone, max_bytes)
    except MessageError as error:
        error.task_id = error.task_id or _text_or_none(headers.get("id"))
        error.task = error.task or _text_or_none(headers.get("task"))
        raise


class Identity(NamedTuple):
    """Who a message is, as far as it could be read."""

    task_id: str | None
    task: str | None


def identify(raw: bytes) -> Identity:
    """Return id and task name of an envelope without parsing its body; never raises.

    For messages that are too large to be parsed or that kill whoever runs them. Protocol 1 hides the task's name in
    the body.
    """
    headers, properties = _object_at(raw, _HEADERS), _object_at(raw, _PROPERTIES)
    task_id = headers.get("id", properties.get("correlation_id"))
    return Identity(_text_or_none(task_id), _text_or_none(headers.get("task")))


def _object_at(raw: bytes, start: re.Pattern[bytes]) -> dict[str, Any]:
    # In a usual envelope the body comes first: searching past it is cheap where parsing it is not.
    found = start.search(raw)
    if found is None:
        return {}
    text = raw[found.end() - 1 : found.end() + _MOST_HEADER_BYTES].decode("utf-8", "replace")
    try:
        value: dict[str, Any] = typed_json.PLAIN.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return {}
    return value


def _open(raw: bytes) -> dict[str, Any]:
    try:
        envelope = typed_json.loads_plain(raw.decode())
    except RecursionError:
        raise MessageError(TOO_DEEP, "the envelope is nested too deeply") from None
    except ValueError as problem:
        raise MessageError(UNDECODABLE_ENVELOPE, f"the envelope is not JSON: {problem}") from None
    if type(envelope) is not dict:
        raise MessageError(UNDECODABLE_ENVELOPE, f"the envelope is a {type(envelope).__name__}, not an object")
    return envelope


def _table(envelope: dict[str, Any], name: str) -> dict[str, Any]:
    table = envelope.get(name)
    if type(table) is dict:
        return table
    if table is None:
        return {}
    raise MessageError(UNDECODABLE_ENVELOPE, f"{name} is a {type(table).__name__}, not an object")


def _message(
    raw: bytes,
    envelope: dict[str, Any],
    headers: dict[str, Any],
    properties: dict[str, Any],
    accept: frozenset[str],
    timezone: str,
    max_bytes: int,
) -> Message:
    if "task" in headers:
        _check_identity(headers)  # before the body, so that an error about the body can name the task
    body = _body(envelope, headers, properties, accept, max_bytes)
    protocol = 2
    if type(body) is dict:
        protocol = 1
        _complete_headers(headers, body)
        timezone = "UTC" if body.get("utc") else timezone
        body = (body.get("args") or (), body.get("kwargs") or {}, {name: body.get(name) for name in _NO_EMBED})
    elif "task" not in headers:
        raise MessageError(MISSING_HEADER, "there is no header 'task', and the body is not one of protocol 1")
    args, kwargs, embed = _parts(body)
    eta, expires, retries = headers.get("eta"), headers.get("expires"), headers.get("retries")
    route = properties.get("delivery_info")
    queue = route.get("routing_key") if type(route) is dict else ""
    return Message(
        headers["id"],
        headers["task"],
        args,
        kwargs,
        {} if embed is None or embed == _NO_EMBED else _checked(embed),
        headers,
        properties,
        0 if not retries else _count(retries),
        None if eta is None else _moment(eta, timezone, BAD_ETA),
        None if expires is None else _moment(expires, timezone, BAD_EXPIRES),
        queue if type(queue) is str else "",
        protocol,
        raw,
    )


def _check_identity(headers: dict[str, Any]) -> None:
    task, task_id = headers.get("task"), headers.get("id")
    if type(task) is str and type(task_id) is str and _PLAIN_NAME(task) and _PLAIN_NAME(task_id):
        return  # what nearly every message has
    if not _is_name(task):
        raise MessageError(MISSING_HEADER, f"header 'task' is {task!r:.80}, not the name of a task")
    if "id" not in headers:
        raise MessageError(MISSING_HEADER, "there is no header 'id'")
    if not _is_name(task_id):
        raise MessageError(BAD_ID, f"header 'id' is {task_id!r:.80}, not a text of up to {_MOST_NAME_CHARS} characters")


def _is_name(value: Any) -> bool:
    """Whether `value` is a text fit for a key, a log line and a process title.

    Not empty, not endless, no half of a surrogate pair, no control characters (a newline would forge log lines).
    """
    if type(value) is not str or not 0 < len(value) <= _MOST_NAME_CHARS or _CONTROLS(value):
        return False
    return value.isascii() or _is_encodable(value)


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text_or_none(value: Any) -> str | None:
    return value if _is_name(value) else None


def _body(
    envelope: dict[str, Any],
    headers: dict[str, Any],
    properties: dict[str, Any],
    accept: frozenset[str],
    max_bytes: int,
) -> Any:
    kind = envelope.get("content-type") or _JSON
    if type(kind) is not str or kind not in accept:
        raise _refused(kind, envelope.get("body"))
    data = _body_bytes(envelope.get("body"), properties.get("body_encoding"))
    if headers.get("compression"):
        data = _unpack(data, headers["compression"], max_bytes)
    try:
        if kind == _JSON and envelope.get("content-encoding") == "utf-8":
            return typed_json.loads(data)
        return serializers.loads(data, kind, envelope.get("content-encoding"))
    except RecursionError:
        raise MessageError(TOO_DEEP, "the body is nested too deeply") from None
    except LookupError:
        text = f"content encoding {envelope.get('content-encoding')!r:.80} is not known"
        raise MessageError(UNKNOWN_ENCODING, text) from None
    except (DecodeError, ConfigError) as problem:
        raise MessageError(UNDECODABLE_BODY, f"the body cannot be decoded: {problem}") from None


def _refused(kind: Any, body: Any) -> MessageError:
    from ..transports import POINTER_TYPE

    if kind == POINTER_TYPE:  # the transport could not put the payload in its place, and says why
        return MessageError(PAYLOAD_MISSING, f"the payload is not here: {body!s:.500}")
    return MessageError(REFUSED_CONTENT_TYPE, f"content type {kind!r:.80} is not in accept_content")


def _body_bytes(body: Any, encoding: Any) -> bytes:
    if type(body) is not str:
        raise MessageError(UNDECODABLE_BODY, f"the body is a {type(body).__name__}, not a text")
    if encoding == "base64":
        try:
            return from_base64(body)
        except (binascii.Error, ValueError) as problem:
            raise MessageError(UNDECODABLE_BODY, f"the body is not base64: {problem}") from None
    if encoding is not None:
        raise MessageError(UNKNOWN_ENCODING, f"body_encoding {encoding!r:.80} is not known")
    try:
        return body.encode()
    except UnicodeEncodeError as problem:
        raise MessageError(UNDECODABLE_BODY, f"the body is not a proper text: {problem}") from None


def _unpack(data: bytes, method: Any, max_bytes: int) -> bytes:
    try:
        return compression.decompress(data, str(method), max_bytes)
    except compression.TooLarge:
        raise MessageError(OVERSIZE, f"the body unpacks to more than {max_bytes} bytes") from None
    except LookupError:
        raise MessageError(UNKNOWN_COMPRESSION, f"compression {method!r:.80} is not known") from None
    except ConfigError as problem:
        raise MessageError(UNKNOWN_COMPRESSION, f"compression {method!r:.80}: {problem}") from None
    except DecodeError as problem:
        raise MessageError(UNDECODABLE_BODY, f"the body cannot be unpacked: {problem}") from None


def _complete_headers(headers: dict[str, Any], body: dict[str, Any]) -> None:
    """Fill `headers` with what protocol 1 keeps in the body."""
    if "task" not in headers and "task" not in body:
        raise MessageError(MISSING_HEADER, "there is no header 'task', and the body names no task either")
    if _PROTOCOL_1_MARKS.isdisjoint(body):  # a damaged body must not run as a call without arguments
        raise MessageError(BAD_BODY_SHAPE, "the body is neither [args, kwargs, embed] nor one of protocol 1")
    for name in _BODY_FIELDS:
        if name in body:
            headers.setdefault(name, body[name])
    if headers.get("group") is None:
        headers["group"] = body.get("taskset")
    _check_identity(headers)


def _parts(body: Any) -> tuple[Any, Any, Any]:
    if type(body) not in (list, tuple) or len(body) != 3:
        raise MessageError(BAD_BODY_SHAPE, "the body is not [args, kwargs, embed]")
    args, kwargs, embed = body
    if type(args) not in (list, tuple) or type(kwargs) is not dict:
        raise MessageError(BAD_BODY_SHAPE, "args is not a list, or kwargs not an object")
    if kwargs and set(map(type, kwargs)) != {str}:
        raise MessageError(BAD_BODY_SHAPE, "a name in kwargs is not a text")
    if embed is not None and type(embed) is not dict:
        raise MessageError(BAD_BODY_SHAPE, "embed is neither an object nor null")
    return args, kwargs, embed


def _checked(embed: dict[str, Any]) -> dict[str, Any]:
    """Return `embed` once it is sure that it can be read: that must not turn out only when the task has run."""
    try:
        for name in ("callbacks", "errbacks", "chain"):
            links = embed.get(name)
            if links is not None and not (type(links) in (list, tuple) and all(map(_is_signature, links))):
                raise MessageError(BAD_BODY_SHAPE, f"{name} is neither null nor a list of signatures")
        chord = embed.get("chord")
        if chord is not None and not _is_signature(chord):
            raise MessageError(BAD_BODY_SHAPE, "chord is neither null nor a signature")
    except RecursionError:
        raise MessageError(TOO_DEEP, "what follows the task is nested too deeply") from None
    return {} if all(embed.get(name) is None for name in _NO_EMBED) else embed


def _is_signature(value: Any) -> bool:
    """Whether `value` can be read as a signature, as deep as anything in it will be read as one."""
    return (
        isinstance(value, dict)
        and _is_name(value.get("task"))
        and isinstance(value.get("args") or [], list | tuple)
        and isinstance(value.get("kwargs") or {}, dict)
        and _are_options(value.get("options") or {})
        and isinstance(value.get("subtask_type"), str | None)
        and (value.get("subtask_type") not in ("chain", "group") or _has_members(value))
    )


def _are_options(options: Any) -> bool:
    return isinstance(options, dict) and all(
        options.get(name) is None or _is_name(options[name]) for name in ("task_id", "queue", "routing_key")
    )


def _has_members(canvas: dict[str, Any]) -> bool:
    members = (canvas.get("kwargs") or {}).get("tasks") or ()
    is_empty_chain = not members and canvas["subtask_type"] == "chain"
    return isinstance(members, list | tuple) and not is_empty_chain and all(map(_is_signature, members))


def _count(retries: Any) -> int:
    if type(retries) is not int or retries < 0:
        raise MessageError(BAD_HEADER, f"header 'retries' is {retries!r:.80}, not a count")
    return retries


def _moment(text: Any, timezone: str, reason: str) -> float:
    try:
        if type(text) is str:
            return parse_moment(text, timezone)
    except (ValueError, OverflowError):
        pass
    name = "eta" if reason == BAD_ETA else "expires"
    raise MessageError(reason, f"header {name!r} is {text!r:.80}, not an ISO 8601 time")
