"""The lock that a `unique` message bears, so that a task id is published once for as long as its first message lives.

A message bears its lock in the header `unique`: the lock's name (a digest of the task id), a nonce, and how long the
lock lasts at most, in ms. Whoever settles the message finds in its bytes what to release, and releases it only if the
lock still bears this nonce: by then it may have ended and be somebody else's. The same in Lua: lua/common.lua.

Written by the tasks room, read by the adapters.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import Final, NamedTuple

#: How long a lock lasts at most when nothing else is said: a Celery worker that runs the message does not release it.
UNIQUE_FOR_S: Final = 86400.0

# The form in which both json modules of the wire write it. Elsewhere in an envelope quotes have a backslash.
_LONGEST_MS: Final = 10**15 - 1
_HEADER: Final = re.compile(rb'"unique": "([0-9a-f]{40})-([0-9a-f]{16})-([0-9]{1,15})"')


class Seal(NamedTuple):
    """What the header says: the lock's name, the nonce, and how long the lock lasts at most."""

    lock: str
    nonce: str
    lasts_s: float


def make_seal(task_id: str, lasts_s: float | None = None) -> str:
    """Return the value of the header `unique` for a new message."""
    digest = hashlib.sha1(id_bytes(task_id), usedforsecurity=False).hexdigest()
    lasts_ms = max(1, round(min((UNIQUE_FOR_S if lasts_s is None else lasts_s) * 1000, _LONGEST_MS)))
    return f"{digest}-{secrets.token_hex(8)}-{lasts_ms}"


def seal_of(raw: bytes) -> Seal | None:
    """Return what an envelope's header `unique` says; None when it has none of ours."""
    found = _HEADER.search(raw)
    if found is None:
        return None
    lock, nonce, lasts_ms = found.groups()
    return Seal(lock.decode(), nonce.decode(), int(lasts_ms) / 1000)


def id_bytes(task_id: str) -> bytes:
    """Return a task id as the adapters keep it: any string, also one that is no valid Unicode."""
    return task_id.encode("utf-8", "surrogatepass")


def task_id_in(raw: bytes) -> str:
    """Return the task id that an envelope names (of protocol 1 as well), or an empty string. Takes time: parses it."""
    try:
        message = json.loads(raw)
        task_id = message["headers"].get("id") or message["properties"].get("correlation_id")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return ""
    return task_id if isinstance(task_id, str) else ""
