"""A result as an item of a DynamoDB table, in the layout of Celery 5.7's backend: its AsyncResult reads ours, we its.

Attributes: `id` (the partition key), `result` (the meta, perhaps compressed), `timestamp`, `ttl` (seconds since the
epoch) when it expires; and one of ours that Celery passes over: `status`, by which a condition tells a success.
Pure functions, called by `dynamodb`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from ..core import log_events, logs
from ..core.errors import ResultStoreError
from .base import StoredResult
from .expiry import Expiry
from .meta import READY_STATES, compress, decompress, status_of

logger = logging.getLogger("qworker.results")

Item = dict[str, dict[str, Any]]

#: An item has at most 400 KiB, names and other attributes included (AWS, "Quotas in Amazon DynamoDB").
MOST_BYTES: Final = 400 * 1024 - 4096
_MOST_KEY: Final = 2048
_PREFIX: Final = "celery-task-meta-"


class Row(NamedTuple):
    """One item on its way to the table. A success replaces anything; other states give way to a success."""

    key: str
    value: bytes
    is_success: bool
    item: Item


def key_of(task_id: str, prefix: str = "") -> str:
    """Return the key of a task's item: Celery's, which is Python's way to show bytes (`b'celery-task-meta-…'`)."""
    # A task id may hold anything that JSON can say, even half a surrogate pair: it must not spoil its batch.
    plain = (prefix + _PREFIX).encode() + task_id.encode("utf-8", "backslashreplace")
    key = repr(plain)
    if len(key) <= _MOST_KEY:
        return key
    # No other writer can have such an id here, so the form is ours.
    return f"{prefix}{_PREFIX}sha256-{hashlib.sha256(plain).hexdigest()}"


def latest(results: Iterable[StoredResult]) -> list[StoredResult]:
    """Return one result for each task: the last success, or else the last state."""
    kept: dict[str, StoredResult] = {}
    for result in results:
        before = kept.get(result.task_id)
        if before is None or result.is_success or not before.is_success:
            kept[result.task_id] = result
    return list(kept.values())


def row_of(result: StoredResult, key: str, expiry: Expiry, compression: str | None, now: float) -> Row | None:
    """Return the row for `result` at the moment `now` (epoch); None for a passing state that does not fit."""
    status = "SUCCESS" if result.is_success else status_of(result.meta)
    value = _packed(result.meta, compression)
    if len(value) > MOST_BYTES:
        if status not in READY_STATES:
            logs.say(
                logger,
                logging.ERROR,
                log_events.STATE_DROPPED,
                "the state {state} of task {id} is too large for DynamoDB and not stored",
                state=status,
                id=result.task_id,
            )
            return None
        value, status = _instead(result, status, len(value)), "FAILURE"
    item: Item = {
        "id": {"S": key},
        "result": {"B": value},
        "timestamp": {"N": str(now)},
        "status": {"S": _plain(status)},
    }
    ttl_s = expiry.failure_s if status == "FAILURE" else expiry.s
    if ttl_s is not None:
        item["ttl"] = {"N": str(math.ceil(now + ttl_s))}
    return Row(key, value, status == "SUCCESS", item)


def meta_in(item: Item | None, now: float) -> bytes | None:
    """Return the meta in an item that was read; None when there is none or its time is over at `now` (epoch).

    DynamoDB deletes what has expired within days, not at once. Raises ResultStoreError for a value that no one can
    decompress.
    """
    if not item or "result" not in item:
        return None
    ends = item.get("ttl", {}).get("N")
    if ends is not None and float(ends) <= now:
        return None
    value = item["result"]
    return decompress(bytes(value["B"]) if "B" in value else str(value.get("S", "")).encode())


def is_success(item: Item | None, now: float) -> bool:
    """Whether an item that was read holds a success that has not expired."""
    try:
        meta = meta_in(item, now)
    except ResultStoreError:
        return False  # what nobody can read is not worth keeping
    return meta is not None and status_of(meta) == "SUCCESS"


def _plain(status: str) -> str:
    """A task's own state may be any text; whole it stands in the meta."""
    return status.encode("ascii", "replace").decode()[:100]


def _packed(meta: bytes, compression: str | None) -> bytes:
    value = compress(meta, compression)
    return compress(meta, "gzip") if len(value) > MOST_BYTES and not compression else value


def _instead(result: StoredResult, status: str, size: int) -> bytes:
    """What is stored for a result that does not fit: a failure that says so to whoever asks for it."""
    problem = (
        f"the task has ended ({status}), but its result of {len(result.meta)} bytes ({size} compressed) does not fit "
        "into an item of DynamoDB (400 KiB): return less, for example a reference to where the data is"
    )
    logs.say(
        logger, logging.ERROR, log_events.RESULT_TRIMMED, "task {id}: {problem}", id=result.task_id, problem=problem
    )
    try:
        meta = dict(json.loads(result.meta))
    except (ValueError, TypeError, RecursionError):
        meta = {"task_id": result.task_id, "children": []}
    kept = {name: meta[name] for name in ("date_done", "task_id", "group_id", "parent_id") if name in meta}
    failure = {"exc_type": "ResultStoreError", "exc_message": [problem], "exc_module": ResultStoreError.__module__}
    return json.dumps({"status": "FAILURE", "result": failure, "traceback": None, "children": [], **kept}).encode()
