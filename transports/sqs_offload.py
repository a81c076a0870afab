"""Payloads too large for SQS: kept in S3, and on the queue a pointer that says whose they are and where they lie.

A pointer is an envelope with the headers and properties of the message and a content type of its own, so whoever
cannot follow it refuses it instead of running something else. The object is the whole envelope, byte for byte.

The order keeps messages whole: the object is written before the pointer is sent, and deleted after the pointer's own
delete is confirmed. A crash between two of these leaves an object that nobody points to: the bucket's lifecycle rule
removes it (docs/payloads.md). Called by sqs_payloads.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from ..core import log_events, logs
from ..core.errors import ConfigError, MessageError, TransportError

logger = logging.getLogger("qworker.transports")

#: The content type of a pointer.
POINTER_TYPE: Final = "application/vnd.qworker.s3+json"
#: Envelopes above this go to S3 unless the option says otherwise: in base64 they stay below the old limit of 256 KiB.
DEFAULT_THRESHOLD: Final = 128 * 1024
#: What a worker takes, by default (worker_max_message_bytes).
MOST_BYTES: Final = 64 * 1024 * 1024
#: Pointers begin with it: other messages are told from them by one comparison.
_START: Final = b'{"content-type": "%b"' % POINTER_TYPE.encode()
_MOST_POINTER: Final = 32 * 1024
#: What of a message is worth a place in a pointer whose whole headers would be too long.
_HEADERS: Final = frozenset(
    {"lang", "task", "id", "shadow", "root_id", "parent_id", "group", "group_index", "eta", "expires", "retries"}
    | {"timelimit", "origin"}
)
_PROPERTIES: Final = frozenset(
    {"correlation_id", "reply_to", "priority", "delivery_info", "delivery_mode", "delivery_tag", "message_attributes"}
    | {"MessageGroupId", "MessageDeduplicationId", "DelaySeconds", "delay_seconds"}
)
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]")
_AT_ONCE: Final = 8
#: DeleteObjects takes no more.
_MOST_DELETED: Final = 1000
_COLLECT_S: Final = 1.0
_DELETE_TRIES: Final = 3


class Pointer(NamedTuple):
    """Where a payload lies, and how long it is."""

    bucket: str
    key: str
    size: int


class PayloadLost(Exception):
    """There is no such object any more, or it is not ours to read."""


def is_pointer(raw: bytes) -> bool:
    """Whether an envelope is a pointer."""
    return raw.startswith(_START)


def make_pointer(raw: bytes, pointer: Pointer) -> bytes:
    """Return the envelope that stands for `raw` on the queue."""
    try:
        envelope = json.loads(raw)
        headers, properties = dict(envelope["headers"]), dict(envelope["properties"])
    except (ValueError, LookupError, TypeError, RecursionError):
        headers, properties = {}, {}
    found = _pointer(headers, properties, pointer)
    if len(found) > _MOST_POINTER:
        headers = {name: value for name, value in headers.items() if name in _HEADERS}
        properties = {name: value for name, value in properties.items() if name in _PROPERTIES}
        found = _pointer(headers, properties, pointer)
    return found


def _pointer(headers: dict[str, Any], properties: dict[str, Any], pointer: Pointer) -> bytes:
    return json.dumps(
        {
            "content-type": POINTER_TYPE,
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": properties,
            "body": json.dumps(pointer._asdict()),
        }
    ).encode()


def read_pointer(raw: bytes) -> Pointer:
    """Return where the payload of the pointer `raw` lies. Raises PayloadLost when it does not say so."""
    try:
        body = json.loads(json.loads(raw)["body"])
        return Pointer(str(body["bucket"]), str(body["key"]), int(body["size"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        raise PayloadLost("the pointer to its payload cannot be read") from None


def lost(raw: bytes, why: str) -> bytes:
    """Return the pointer `raw` with `why` in place of the way: the worker then refuses the message with these words."""
    try:
        envelope = dict(json.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return raw
    return json.dumps({**envelope, "body": why}).encode()


class Bucket:
    """The payloads of one transport. `client` makes or returns a client of S3. Any thread."""

    def __init__(self, client: Callable[[], Any], bucket: str, prefix: str, threshold: int = DEFAULT_THRESHOLD) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._threshold = threshold
        self._cond = threading.Condition()
        self._doomed: deque[str] = deque()
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def check(self) -> None:
        """Raise ConfigError when there is no such bucket, TransportError when nobody answers."""
        try:
            self._client().head_bucket(Bucket=self._bucket)
        except Exception as error:  # botocore's errors share no base class
            code = _code(error)
            if code in ("404", "NoSuchBucket"):
                raise ConfigError(f"there is no S3 bucket {self._bucket!r}: create it, or correct s3_bucket") from error
            if code in ("403", "AccessDenied"):
                logs.say(
                    logger,
                    logging.WARNING,
                    log_events.BUCKET_UNLISTED,
                    "the S3 bucket {bucket!r} cannot be listed: give this worker s3:ListBucket",
                    bucket=self._bucket,
                )
                return
            raise self._translate(error, "looked at") from error

    def is_large(self, raw: bytes, most_bytes: int) -> bool:
        """Whether `raw` is to be kept in S3, on its way to a queue that takes `most_bytes`."""
        return len(raw) > min(self._threshold, (most_bytes - 2048) * 3 // 4)

    def stow(self, raw: bytes) -> bytes:
        """Write `raw` to S3 and return its pointer. Raises MessageError, ConfigError, TransportError."""
        if len(raw) > MOST_BYTES:
            raise MessageError("oversize", f"the message has {len(raw)} bytes; at most {MOST_BYTES} can be sent")
        key = f"{self._prefix}{_name_in(raw)}{uuid.uuid4().hex}"
        try:
            self._client().put_object(Bucket=self._bucket, Key=key, Body=raw)
        except Exception as error:  # botocore's errors share no base class
            trouble = self._translate(error, "written")
            if isinstance(trouble, TransportError):
                trouble.nothing_sent = True  # of a message; an object that was written all the same points nowhere
            raise trouble from error
        return make_pointer(raw, Pointer(self._bucket, key, len(raw)))

    def fetch(self, raw: bytes) -> bytes:
        """Return the envelope that the pointer `raw` stands for.

        Raises PayloadLost when that will never be possible, TransportError when it is not possible now.
        """
        pointer = self._own(raw)
        try:
            content: bytes = self._client().get_object(Bucket=pointer.bucket, Key=pointer.key)["Body"].read()
        except Exception as error:  # botocore's errors share no base class
            if _code(error) in ("404", "NoSuchKey"):
                raise PayloadLost(f"there is no s3://{pointer.bucket}/{pointer.key}: {_EXPIRED}") from error
            raise _as_transport_error(self._translate(error, "read")) from error
        if len(content) != pointer.size:
            raise PayloadLost(
                f"s3://{pointer.bucket}/{pointer.key} has {len(content)} bytes, but {pointer.size} were written"
            )
        return content

    def fetch_many(self, raws: Sequence[bytes]) -> list[bytes | PayloadLost | TransportError]:
        """What `fetch` returns or raises for each, several at a time."""
        if len(raws) == 1:
            return [self._attempt(raws[0])]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(_AT_ONCE, len(raws)), "sqs-payload") as threads:
            return list(threads.map(self._attempt, raws))

    def forget(self, raw: bytes) -> None:
        """Delete the payload of the pointer `raw`, some time soon: its message has been acked. Never raises."""
        try:
            pointer = self._own(raw)
        except PayloadLost:
            return
        with self._cond:
            self._doomed.append(pointer.key)
            if self._thread is None:
                self._thread = threading.Thread(target=self._delete_all, name="sqs-payload-deletes", daemon=True)
                self._thread.start()

    def close(self, wait_s: float) -> None:
        """Delete what is still to be deleted, within `wait_s`. Never raises."""
        with self._cond:
            self._is_closing = True
            self._cond.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(wait_s)
        self._is_closing = False

    def _own(self, raw: bytes) -> Pointer:
        """Only ours are followed: a message could point anywhere, and what it points to is deleted after its ack."""
        pointer = read_pointer(raw)
        if pointer.bucket != self._bucket or not pointer.key.startswith(self._prefix):
            raise PayloadLost(
                f"its payload is s3://{pointer.bucket}/{pointer.key}, and this worker reads s3://{self._bucket}/"
                f"{self._prefix}… only (s3_bucket, s3_prefix)"
            )
        if pointer.size > MOST_BYTES:
            raise PayloadLost(f"its payload has {pointer.size} bytes, and at most {MOST_BYTES} are taken")
        return pointer

    def _attempt(self, raw: bytes) -> bytes | PayloadLost | TransportError:
        try:
            return self.fetch(raw)
        except (PayloadLost, TransportError) as error:
            return error

    def _delete_all(self) -> None:
        while True:
            with self._cond:
                self._cond.wait_for(lambda: self._is_closing, _COLLECT_S)
                keys = [self._doomed.popleft() for _ in range(min(len(self._doomed), _MOST_DELETED))]
                if not keys:
                    # The next `forget` starts another thread: none of an idle transport stays behind.
                    self._thread = None
                    return
            self._delete(keys)

    def _delete(self, keys: Sequence[str]) -> None:
        request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        for left in reversed(range(_DELETE_TRIES)):
            try:
                self._client().delete_objects(Bucket=self._bucket, Delete=request)
                return
            except Exception as error:  # botocore's errors share no base class
                if not left or self._is_closing:
                    logs.say(
                        logger,
                        logging.WARNING,
                        log_events.PAYLOADS_LEFT,
                        "{count} payloads are left to the bucket's lifecycle rule: {error}",
                        count=len(keys),
                        error=error,
                    )
                    return
            time.sleep(_COLLECT_S)

    def _translate(self, error: Exception, done: str) -> TransportError | ConfigError:
        text = f"a payload in the S3 bucket {self._bucket!r} cannot be {done}: {' '.join(str(error).split())[:300]}"
        if _code(error) == "NoSuchBucket":
            return ConfigError(text)
        if _code(error) in ("403", "AccessDenied") and done == "read":
            text += " (S3 says the same of a payload that is gone, unless s3:ListBucket is granted)"
        return TransportError(text)


_EXPIRED: Final = "another copy of the message was acked, or the bucket's lifecycle rule was faster"


def _as_transport_error(error: TransportError | ConfigError) -> TransportError:
    return error if isinstance(error, TransportError) else TransportError(str(error))


def _code(error: Exception) -> str:
    """AWS's own word; empty when nobody answered."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _name_in(raw: bytes) -> str:
    """The task's id, for people who look into the bucket."""
    try:
        task_id = str(json.loads(raw)["headers"]["id"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return f"{_ODD.sub('-', task_id)[:100]}/"
