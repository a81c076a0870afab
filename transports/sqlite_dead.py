"""The dead-letter store of the SQLite broker: rows in the state `dead`. Used by sqlite.py.

`requeue` and `purge` run inside the caller's write transaction.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Final

from .base import DeadLetter
from .sqlite_rows import BATCH, place
from .sqlite_unique import Locks
from .unique import seal_of

#: A dead letter's token is its row, which SQLite keeps in 63 bits.
_TOKEN: Final = re.compile("[1-9][0-9]{0,17}")


def newest(db: sqlite3.Connection, limit: int) -> list[DeadLetter]:
    """The newest dead letters, newest first."""
    query = (
        "SELECT id, queue, crashes, died_at, record, raw FROM qworker_messages "
        "WHERE state = 'dead' ORDER BY died_at DESC, id DESC LIMIT ?"
    )
    return [_dead_letter(*row) for row in db.execute(query, (max(0, limit),))]


def batches_of(tokens: Sequence[str]) -> Iterator[list[int]]:
    """The rows that tokens name, in batches: other writers get their turn in between."""
    rows = [int(token) for token in dict.fromkeys(tokens) if _TOKEN.fullmatch(token)]
    return (rows[at : at + BATCH] for at in range(0, len(rows), BATCH))


def requeue(db: sqlite3.Connection, rows: Sequence[int]) -> int:
    """Make dead rows ready again, at the back, unless another message has their lock; returns how many."""
    update = "UPDATE qworker_messages SET crashes = 0, died_at = NULL, record = NULL WHERE id = ? AND state = 'dead'"
    locks = Locks(db, time.time())
    dead = [row for row in rows if _may_come_back(db, locks, row) and db.execute(update, (row,)).rowcount]
    place(db, dead, front=False)
    return len(dead)


def purge(db: sqlite3.Connection, rows: Sequence[int]) -> int:
    """Delete dead rows; returns how many."""
    delete = "DELETE FROM qworker_messages WHERE id = ? AND state = 'dead'"
    return sum(db.execute(delete, (row,)).rowcount for row in rows)


def _may_come_back(db: sqlite3.Connection, locks: Locks, row: int) -> bool:
    """Take the lock that a dead row bears, if it bears one; False when another message has it."""
    found = db.execute("SELECT raw FROM qworker_messages WHERE id = ? AND state = 'dead'", (row,)).fetchone()
    seal = seal_of(found[0]) if found else None
    if seal is None:
        return True
    free = locks.is_free(seal)
    if free:
        locks.take(seal)
    return free


def _dead_letter(row: int, queue: str, crashes: int, died_at: float, record: str, raw: bytes) -> DeadLetter:
    stored = json.loads(record)
    return DeadLetter(str(row), queue, stored["reason"], crashes, died_at, stored["details"], raw)
