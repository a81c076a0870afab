"""The message on SQS: a body that is base64 of the envelope, as kombu writes it, and what travels beside it.

Called by publishing and settling (envelopes become entries of a request) and by the pollers (answers become bytes).
Pure functions. An entry is what SendMessageBatch takes, without its Id.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..core.errors import MessageError
from .base import Envelope

#: What SendMessage can delay.
MOST_DELAY_S: Final = 900
#: Deaths of children, and failed runs, that the receive count of this copy does not tell.
CRASHES: Final = "qworker.crashes"
ATTEMPTS: Final = "qworker.attempts"
#: Bytes that are no UTF-8 cannot be told from a body that only looks like base64: this says that it is base64.
ENCODING: Final = "qworker.encoding"
#: SQS takes no more attributes; a producer's own come first.
MOST_ATTRIBUTES: Final = 10
#: What a request of ten may weigh besides the bodies.
OVERHEAD: Final = 64
_SPECIAL: Final = (b'"MessageGroupId"', b'"MessageDeduplicationId"', b'"DelaySeconds"', b'"delay_seconds"')
_ATTRIBUTES: Final = b'"message_attributes"'
_MOST_ID: Final = 128
_CONTROLS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

Entry = dict[str, Any]
Attributes = dict[str, dict[str, Any]]


class Received(NamedTuple):
    """One message of an answer, read."""

    id: str
    handle: str
    raw: bytes
    body: str
    receives: int
    sent_at: float  # seconds since the epoch, by SQS's clock
    group: str
    attributes: Attributes

    def number(self, name: str) -> int:
        """The attribute `name` if it is a number, else 0."""
        return number_in(self.attributes, name)


def read(message: Mapping[str, Any]) -> Received:
    """Read one message of an answer to ReceiveMessage. Never raises: whatever it is, it is bytes."""
    system = message.get("Attributes") or {}
    attributes = message.get("MessageAttributes") or {}
    body = message.get("Body", "")
    return Received(
        message.get("MessageId", ""),
        message["ReceiptHandle"],
        decode_body(body, is_base64=ENCODING in attributes),
        body,
        _whole(system.get("ApproximateReceiveCount"), 1),
        _whole(system.get("SentTimestamp"), 0) / 1000,
        system.get("MessageGroupId", ""),
        attributes,
    )


def decode_body(body: str, *, is_base64: bool = False) -> bytes:
    """Return the envelope in `body`: canonical base64 of UTF-8 is decoded, anything else is taken as it is."""
    plain = body.encode("utf-8", "surrogatepass")
    try:
        decoded = base64.b64decode(plain, validate=True)
        if not is_base64:
            decoded.decode()
    except (binascii.Error, ValueError):
        return plain
    return decoded if base64.b64encode(decoded) == plain else plain


def number_in(attributes: Mapping[str, Any], name: str) -> int:
    """The message attribute `name` if it is a number above 0, else 0."""
    return max(0, _whole(attributes.get(name, {}).get("StringValue"), 0))


def number(value: int) -> dict[str, str]:
    """A message attribute."""
    return {"DataType": "Number", "StringValue": str(value)}


def text(value: str) -> dict[str, str]:
    """A message attribute; SQS takes no empty one."""
    return {"DataType": "String", "StringValue": value or "-"}


def entry_of(
    envelope: Envelope, *, is_fifo: bool, now: float, most_bytes: int, plain: bool = False, is_anew: bool = False
) -> Entry:
    """Return the entry for `envelope` at the moment `now`. Raises MessageError when it is larger than `most_bytes`.

    With `plain` the body is the envelope as it is. `is_anew`: it continues a task that was published before (a retry),
    so the producer's deduplication id would make SQS drop it.
    """
    raw = envelope.raw
    entry: Entry = {}
    if is_fifo or _ATTRIBUTES in raw or any(word in raw for word in _SPECIAL):
        entry = _special(raw, is_fifo, is_anew)
    if not is_fifo and envelope.due is not None:
        # A given DelaySeconds says more than a countdown, which says the same thing twice.
        entry.setdefault("DelaySeconds", delay_s(envelope.due - now))
    entry["MessageBody"] = _body(raw, entry, plain, most_bytes - weight_of(entry))
    return entry


def delay_s(wait_s: float) -> int:
    """The whole seconds for DelaySeconds: never early, as long as one message can wait."""
    return max(0, min(MOST_DELAY_S, math.ceil(wait_s)))


def weight_of(entry: Mapping[str, Any]) -> int:
    """What SQS counts for an entry's size: the body, and names, types and values of the attributes."""
    total = len(str(entry.get("MessageBody", "")).encode("utf-8", "surrogatepass"))
    for name, value in (entry.get("MessageAttributes") or {}).items():
        content = value.get("StringValue") or value.get("BinaryValue") or ""
        total += len(name) + len(value.get("DataType", "")) + len(content)
    return total


def _body(raw: bytes, entry: Entry, plain: bool, most_bytes: int) -> str:
    """Base64 unless it is too long so, and is short enough as it is, which every reader takes as well."""
    try:
        as_is: str | None = raw.decode()
    except ValueError:
        as_is = None
    # An object, so that it cannot be taken for base64; of the control characters SQS knows three.
    may_be_plain = as_is is not None and as_is.startswith("{") and not _CONTROLS.search(as_is)
    length = 4 * ((len(raw) + 2) // 3)
    if may_be_plain and as_is is not None and len(raw) <= most_bytes and (plain or length > most_bytes):
        return as_is
    if length > most_bytes:
        raise MessageError(
            "oversize",
            f"the message has {length} bytes on SQS (base64 of {len(raw)}), and its queue takes {most_bytes}: "
            "set s3_bucket, send less, or raise the queue's MaximumMessageSize (at most 1 MiB)",
        )
    if as_is is None:
        entry.setdefault("MessageAttributes", {})[ENCODING] = text("base64")
    return base64.b64encode(raw).decode()


def _special(raw: bytes, is_fifo: bool, is_anew: bool) -> Entry:
    """What the producer has said to SQS by properties."""
    entry: Entry = {}
    try:
        properties = json.loads(raw)["properties"]
    except (ValueError, LookupError, TypeError, RecursionError):
        properties = {}
    if not isinstance(properties, dict):
        properties = {}
    group = properties.get("MessageGroupId")
    if group or is_fifo:
        entry["MessageGroupId"] = str(group or "default")
    if is_fifo:
        given = properties.get("MessageDeduplicationId")
        is_usable = bool(given) and not is_anew and len(str(given)) <= _MOST_ID
        entry["MessageDeduplicationId"] = str(given) if is_usable else str(uuid.uuid4())
    else:
        wait_s = properties.get("DelaySeconds", properties.get("delay_seconds"))
        if isinstance(wait_s, int | float) and not isinstance(wait_s, bool) and not is_anew:
            entry["DelaySeconds"] = delay_s(wait_s)
    attributes = properties.get("message_attributes")
    if isinstance(attributes, dict) and attributes:
        entry["MessageAttributes"] = dict(list(attributes.items())[:MOST_ATTRIBUTES])
    return entry


def _whole(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default
