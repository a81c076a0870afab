"""Housekeeping of the SQLite broker: what is due moves to its queue, what the dead held comes back. Used by sqlite.py.

All functions run inside the caller's write transaction.
"""

from __future__ import annotations

import sqlite3
import time

from .base import Maintenance
from .sqlite_rows import BATCH, place
from .sqlite_silence import excused_until, hear


def maintain(db: sqlite3.Connection, owner: str, lease_s: float) -> Maintenance:
    """Move what is due, give back what owners hold whose lease has ended; in one bounded batch each."""
    now = time.time()
    moved = move_due(db, now)
    recovered, look_again_s = _recover(db, owner, lease_s)
    (due,) = db.execute("SELECT min(due) FROM qworker_messages WHERE state = 'delayed'").fetchone()
    return Maintenance(
        moved=moved,
        recovered=recovered,
        next_due_s=None if due is None else max(0.0, due - now),
        more=BATCH in (moved, recovered),
        look_again_s=look_again_s,
    )


def move_due(db: sqlite3.Connection, now: float) -> int:
    """Make rows ready whose time has come; returns how many."""
    query = "SELECT id, front FROM qworker_messages WHERE state = 'delayed' AND due <= ? ORDER BY due, id LIMIT ?"
    rows = db.execute(query, (now, BATCH)).fetchall()
    place(db, [row for row, front in rows if not front], front=False)
    place(db, [row for row, front in rows if front], front=True)
    return len(rows)


def _recover(db: sqlite3.Connection, owner: str, lease_s: float) -> tuple[int, float | None]:
    """Give back what owners hold that are dead or unknown, in the order in which it was taken.

    Returns how many, and when another owner's lease or excuse ends, in seconds from now.
    """
    now = time.monotonic()
    hear(db, now, lease_s)
    ends = _living(db, owner, now)
    alive = [owner, *ends]
    others = f"owner NOT IN ({', '.join('?' * len(alive))})"
    query = (
        f"SELECT id FROM qworker_messages WHERE state = 'inflight' AND {others} "
        "ORDER BY queue, priority, position DESC LIMIT ?"
    )
    # The youngest first and reversed: with more than one batch, the oldest comes to stand at the very front.
    rows = [row for (row,) in db.execute(query, (*alive, BATCH))][::-1]
    crashed = "UPDATE qworker_messages SET crashes = crashes + 1 WHERE id = ? AND started = receipt"
    db.executemany(crashed, [(row,) for row in rows])
    place(db, rows, front=True)
    db.execute(f"DELETE FROM qworker_owners WHERE {others}", alive)
    return len(rows), max(0.0, min(ends.values()) - now) if ends else None


def _living(db: sqlite3.Connection, owner: str, now: float) -> dict[str, float]:
    """Every other owner that lives, and until when it is known to."""
    found: dict[str, float] = {}
    query = "SELECT owner, ends, lease_s FROM qworker_owners WHERE owner <> ?"
    for other, ends, lease_s in db.execute(query, (owner,)).fetchall():
        until = ends if ends > now else excused_until(db, ends, lease_s)
        if until > now and ends <= now + lease_s:
            found[other] = until
    return found
