"""The dead-letter store on Redis: tokens by the time of death, and under each token a JSON record and the envelope.

Used by the verbs in redis.py. Messages get there by lua/reject.lua, and by scripts that find one that nobody can run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from .base import DeadLetter, Rejection
from .redis_names import Names
from .redis_scripts import PURGE_DEAD, REQUEUE_DEAD
from .redis_session import Session

_DEAD_BATCH: Final = 500


class DeadLetters:
    """The store of one database. One thread at a time; each verb raises TransportError."""

    def __init__(self, session: Session, names: Names) -> None:
        self._session = session
        self._names = names

    def newest(self, limit: int) -> list[DeadLetter]:
        """So many of them, newest first."""
        own = f"{self._names.prefix}qworker:"
        (found,) = self._session.call(("ZRANGE", f"{own}dead", 0, limit - 1, "REV", "WITHSCORES"))
        tokens = found[::2]
        if not tokens or limit <= 0:
            return []
        (stored,) = self._session.call(("HMGET", f"{own}dead:data", *tokens))
        rows = zip(tokens, found[1::2], stored, strict=True)
        return [_dead_letter(token, float(at), data) for token, at, data in rows if data is not None]

    def requeue(self, tokens: Sequence[str]) -> int:
        """Put dead letters back at the end of their lists, in bounded batches."""
        total = at = 0
        while at < len(tokens):
            count, seen = self._session.run(REQUEUE_DEAD, (), tokens[at : at + _DEAD_BATCH])
            total, at = total + count, at + seen
        return total

    def purge(self, tokens: Sequence[str]) -> int:
        """Delete dead letters, in bounded batches."""
        batches = (tokens[at : at + _DEAD_BATCH] for at in range(0, len(tokens), _DEAD_BATCH))
        return sum(int(self._session.run(PURGE_DEAD, (), batch)) for batch in batches)


def record_of(rejection: Rejection) -> str:
    """What lua/reject.lua stores in front of the envelope."""
    delivery = rejection.delivery
    record = {
        "queue": delivery.queue,
        "reason": rejection.reason,
        "crashes": delivery.crashes,
        "details": rejection.details,
    }
    return json.dumps(record, default=str)


def _dead_letter(token: bytes, at_ms: float, data: bytes) -> DeadLetter:
    head, _, raw = data.partition(b"\n")
    record = json.loads(head)
    return DeadLetter(
        token=token.decode(),
        queue=record["queue"],
        reason=record["reason"],
        crashes=record["crashes"],
        died_at=at_ms / 1000,
        details=record["details"],
        raw=raw,
    )
