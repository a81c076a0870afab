"""Reading of stored results: the small facts that every store needs to know about a meta, and decompression.

A meta is the JSON object of Celery's result backend (`{"status": …, "result": …, "task_id": …}`) as bytes. The stores look at it
only here; they never decode a result's value. Called by the stores and by AsyncResult.
"""

from __future__ import annotations

import json
from typing import Final

from ..core.errors import ResultStoreError

READY_STATES: Final = frozenset({"SUCCESS", "FAILURE", "REVOKED"})

# What Celery puts before a compressed result: this mark, the content type of the compression, a NUL, the compressed JSON.
_COMPRESSED: Final = b"\x00celery-compressed\x00"
_GZIP: Final = "application/x-gzip"
_METHODS: Final = {"gzip": _GZIP, "zlib": _GZIP, _GZIP: _GZIP}
_STATUS_FIRST: Final = (b'{"status": "', b'{"status":"')


def status_of(meta: bytes) -> str:
    """Return the status in `meta` (uncompressed JSON), `"PENDING"` when there is none."""
    for start in _STATUS_FIRST:
        # Nearly every writer puts the status first: no need to parse a result of many megabytes.
        if meta.startswith(start):
            return meta[len(start) : meta.index(b'"', len(start))].decode()
    decoded = json.loads(meta)
    status = decoded.get("status") if isinstance(decoded, dict) else None
    return status if isinstance(status, str) else "PENDING"


def is_ready(meta: bytes) -> bool:
    """Whether the status in `meta` is final."""
    return status_of(meta) in READY_STATES


def compression_for(setting: object) -> str | None:
    """Return the content type for the setting `result_compression`, None for no compression or one that is not written here."""
    return _METHODS.get(str(setting).lower()) if setting else None


def compress(meta: bytes, content_type: str | None) -> bytes:
    """Return `meta` as it is stored under `result_compression`."""
    if content_type is None:
        return meta
    import zlib

    return b"%b%b\x00%b" % (_COMPRESSED, content_type.encode(), zlib.compress(meta))


def decompress(stored: bytes) -> bytes:
    """Return the JSON of a stored value, compressed or not. Raises ResultStoreError for a compression that cannot be read."""
    if not stored.startswith(_COMPRESSED):
        return stored
    content_type, _, body = stored[len(_COMPRESSED) :].partition(b"\x00")
    try:
        return _inflate(content_type.decode("ascii", "replace"), body)
    except Exception as error:  # zlib, bz2 and lzma each have errors of their own; all mean the same here
        raise ResultStoreError(f"a stored result cannot be decompressed ({content_type!r}): {error}") from error


def _inflate(content_type: str, body: bytes) -> bytes:
    if content_type == _GZIP:
        import zlib

        return zlib.decompress(body)
    if content_type == "application/x-bz2":
        import bz2

        return bz2.decompress(body)
    if content_type == "application/x-lzma":
        import lzma

        return lzma.decompress(body)
    raise ValueError("unknown compression")
