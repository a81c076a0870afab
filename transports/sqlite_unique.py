"""The locks of `unique` messages in the SQLite broker's file. Used by the SQLite adapter only, inside its transactions.

Where there are no locks, nobody looks into messages: a transaction asks once (`any`). What a lock is: unique.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from .base import Envelope
from .unique import Seal, seal_of


class Locks:
    """The locks, as one transaction sees them. `now` is seconds since the epoch."""

    def __init__(self, db: sqlite3.Connection, now: float) -> None:
        self._db = db
        self._now = now
        self.any = bool(db.execute("SELECT EXISTS (SELECT 1 FROM qworker_unique)").fetchone()[0])

    def is_free(self, seal: Seal) -> bool:
        """Whether nobody has this lock, or its time is over."""
        found = self._db.execute("SELECT ends FROM qworker_unique WHERE lock = ?", (seal.lock,)).fetchone()
        return found is None or found[0] <= self._now

    def take(self, seal: Seal, due: float | None = None) -> None:
        """Take it, from whomever. It lasts from when the message is due."""
        if self.any:
            self._db.execute("DELETE FROM qworker_unique WHERE ends <= ?", (self._now,))
        ends = max(self._now, due or 0.0) + seal.lasts_s
        self._db.execute("INSERT OR REPLACE INTO qworker_unique VALUES (?, ?, ?)", (seal.lock, seal.nonce, ends))
        self.any = True

    def may_publish(self, envelope: Envelope) -> bool:
        """Take the lock that an envelope needs, if it needs one; False when another message has it."""
        seal = seal_of(envelope.raw) if envelope.unique else None
        if seal is None:
            return True
        free = self.is_free(seal)
        if free:
            self.take(seal, envelope.due)
        return free

    def settle(self, raw: bytes, successors: Sequence[Envelope] = ()) -> None:
        """A message has ended: so does its lock, unless a successor goes on bearing it."""
        seal = seal_of(raw)
        if seal is None:
            return
        for envelope in successors:
            if not envelope.unique and seal_of(envelope.raw) == seal:
                ends = max(self._now, envelope.due or 0.0) + seal.lasts_s
                change = "UPDATE qworker_unique SET ends = ? WHERE lock = ? AND nonce = ?"
                self._db.execute(change, (ends, seal.lock, seal.nonce))
                return
        self._db.execute("DELETE FROM qworker_unique WHERE lock = ? AND nonce = ?", (seal.lock, seal.nonce))
