"""The Lua scripts, read once from the files beside this one. Used by the Redis adapter only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).with_name("lua")


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its name for messages, its source, and the digest by which the server knows it."""

    name: str
    source: bytes
    sha: str


def _load(*parts: str) -> Script:
    *_, name = parts
    source = b"\n".join((_FOLDER / f"{part}.lua").read_bytes() for part in ("common", *parts))
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


JOIN: Final = _load("join")
CLAIM: Final = _load("claim")
ACK: Final = _load("ack")
REQUEUE: Final = _load("requeue")
REJECT: Final = _load("reject")
EXTEND: Final = _load("owners", "extend")
MARK_STARTED: Final = _load("mark_started")
MARK_STOPPING: Final = _load("mark_stopping")
RECALL: Final = _load("recall")
PUBLISH: Final = _load("publish")
DISCARD_DELAYED: Final = _load("discard_delayed")
MAINTAIN: Final = _load("owners", "maintain")
RESTORE: Final = _load("restore")
RELEASE: Final = _load("release")
OLDEST: Final = _load("oldest")
PURGE: Final = _load("purge")
REQUEUE_DEAD: Final = _load("requeue_dead")
PURGE_DEAD: Final = _load("purge_dead")
LEAVE: Final = _load("leave")
