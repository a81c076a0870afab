"""Reading of stored results: the small facts that every store needs to know about a meta, and decompression.

A meta is the JSON object of Celery's result backend (`{"status": …, "result": …, "task_id": …}`) as bytes. The stores
look at it only here; they never decode a result's value. Called by the stores and by AsyncResult.
"""

from __future__ import annotations

import json
from typing import Final

from ..core.errors import ResultStoreError

READY_STATES: Final = frozenset({"SUCCESS", "FAILURE", "REVOKED"})

# What Celery puts before a compressed result: this mark, the content type of the compression, a NUL, the compressed
# JSON.
_COMPRESSED: Final = b"\x00celery-compressed\x00"
# No value in Redis is larger.
_LARGEST: Final = 512 << 20
_STATUS_FIRST: Final = (b'{"status": "', b'{"status":"')


def status_of(meta: bytes) -> str:
    """Return the status in `meta` (uncompressed JSON); an empty string when it holds none that can be read."""
    for start in _STATUS_FIRST:
        # Nearly every writer puts the status first: no need to parse a result of many megabytes.
        if meta.startswith(start):
            return meta[len(start) : len(start) + 200].partition(b'"')[0].decode("utf-8", "replace")
    try:
        decoded = json.loads(meta)
    except (ValueError, RecursionError):
        return ""
    status = decoded.get("status") if isinstance(decoded, dict) else None
    return status if isinstance(status, str) else ""


def is_ready(meta: bytes) -> bool:
    """Whether the status in `meta` is final. So is one that cannot be read: waiting would not make it better."""
    status = status_of(meta)
    return status in READY_STATES or not status


def compress(meta: bytes, method: str | None) -> bytes:
    """Return `meta` as the setting `result_compression` has it stored. Raises ConfigError for an unknown method."""
    if not method:
        return meta
    from ..tasks import compression

    content_type = compression.content_type_of(method)
    return b"%b%b\x00%b" % (_COMPRESSED, content_type.encode(), compression.compress(meta, content_type))


def decompress(stored: bytes) -> bytes:
    """Return the JSON of a stored value, compressed or not. Raises ResultStoreError when that cannot be done."""
    if not stored.startswith(_COMPRESSED):
        return stored
    from ..tasks import compression

    content_type, _, body = stored[len(_COMPRESSED) :].partition(b"\x00")
    try:
        return compression.decompress(body, content_type.decode("ascii", "replace"), _LARGEST)
    except LookupError:
        problem = "its compression is unknown here"
    except compression.TooLarge:
        problem = "it is too large"
    except ValueError as error:
        problem = str(error)
    raise ResultStoreError(f"a stored result ({content_type!r}) cannot be read: {problem}")
