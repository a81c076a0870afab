"""Which rows a reserve takes and where rows go: the ordering rules of the SQLite broker. Used by sqlite.py only.

Within a queue and a priority rows stand in the order of `position`: new ones get the highest plus one, what is given
back gets the lowest minus one. All functions run inside the caller's write transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from .base import Envelope
from .order import Order, Place, carry_out
from .sqlite_unique import Locks
from .unique import id_bytes

#: Messages moved by one housekeeping transaction.
BATCH: Final = 500
_BATCH_BYTES: Final = 16 * 1024 * 1024

_INSERT: Final = """
INSERT INTO qworker_messages (state, queue, priority, position, front, due, task_id, raw)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_READY: Final = """
UPDATE qworker_messages SET state = 'ready', owner = NULL, due = NULL, front = 0, position = ? WHERE id = ?
"""
_OLDEST: Final = """
SELECT id, length(raw) FROM qworker_messages WHERE state = 'ready' AND queue = ? AND priority = ? ORDER BY position
"""


def insert(db: sqlite3.Connection, envelopes: Sequence[Envelope], now: float) -> list[Envelope]:
    """Add messages, those with a due time ahead as delayed ones. Returns those that did not get their lock."""
    refused: list[Envelope] = []
    if any(e.unique for e in envelopes):
        locks = Locks(db, now)
        refused = [e for e in envelopes if not locks.may_publish(e)]
        envelopes = [e for e in envelopes if not any(e is other for other in refused)]
    later = [e for e in envelopes if e.due is not None and e.due > now]
    rows = [("delayed", e.queue, e.priority, 0, e.front, e.due, id_bytes(e.task_id) or None, e.raw) for e in later]
    db.executemany(_INSERT, rows)
    soon = [e for e in envelopes if e.due is None or e.due <= now]
    ends = _Ends(db)
    placed = [(e, ends.back(e.queue, e.priority)) for e in soon if not e.front]
    # The first one comes to be the next: the last one is put in front first.
    placed += [(e, ends.front(e.queue, e.priority)) for e in reversed(soon) if e.front]
    db.executemany(_INSERT, [("ready", e.queue, e.priority, at, 0, None, None, e.raw) for e, at in placed])
    return refused


def place(db: sqlite3.Connection, rows: Sequence[int], *, front: bool) -> None:
    """Make rows ready: at the back in this order, or at the front so that the first one is the next."""
    ends = _Ends(db)
    for row in reversed(rows) if front else rows:
        queue, priority = db.execute("SELECT queue, priority FROM qworker_messages WHERE id = ?", (row,)).fetchone()
        position = ends.front(queue, priority) if front else ends.back(queue, priority)
        db.execute(_READY, (position, row))


def choose(db: sqlite3.Connection, order: Order, queues: Sequence[str], limit: int) -> list[int]:
    """The rows to take, in the order to deliver them: by priority and queue as `order` has it, oldest first in each."""
    levels = order.levels(_waiting(db, order.queues(queues)))
    if not levels.all:
        return []
    shelf = _Shelf(db)
    taken = carry_out(order.plan(levels, limit), levels, limit, shelf.read)
    return [row for run in order.took(levels, taken) for row in shelf.runs[run]]


def _waiting(db: sqlite3.Connection, queues: Sequence[str]) -> list[list[Place]]:
    """The lists that are not empty, by priority. One index look-up for each, however long they are."""
    following = "SELECT min(priority) FROM qworker_messages WHERE state = 'ready' AND queue = ? AND priority > ?"
    found: dict[int, list[Place]] = {}
    for queue in queues:
        at = -1
        while (priority := db.execute(following, (queue, at)).fetchone()[0]) is not None:
            at = int(priority)
            found.setdefault(at, []).append((queue, at))
    return [places for _, places in sorted(found.items())]


class _Shelf:
    """Reads rows off lists, up to the bytes of one call, but at least one row. `runs` holds what each read gave."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.runs: list[list[int]] = []
        self._db = db
        self._rows: dict[Place, sqlite3.Cursor] = {}
        self._room = _BATCH_BYTES

    def read(self, place: Place, count: int) -> tuple[int, bool]:
        """As `carry_out` wants it."""
        rows = self._rows.get(place)
        if rows is None:
            rows = self._rows[place] = self._db.execute(_OLDEST, place)
        run: list[int] = []
        while len(run) < count and self._room > 0:
            found = rows.fetchone()
            if found is None:
                break
            row, size = found
            if size > self._room and (run or self.runs):
                self._room = 0
                break
            run.append(row)
            self._room -= size
        if run:
            self.runs.append(run)
        return len(run), len(run) < count and self._room > 0


class _Ends:
    """The next free positions at both ends of each queue and priority, asked for once per transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._known: dict[tuple[str, int], list[int]] = {}

    def front(self, queue: str, priority: int) -> int:
        ends = self._ends(queue, priority)
        ends[0] -= 1
        return ends[0]

    def back(self, queue: str, priority: int) -> int:
        ends = self._ends(queue, priority)
        ends[1] += 1
        return ends[1]

    def _ends(self, queue: str, priority: int) -> list[int]:
        ends = self._known.get((queue, priority))
        if ends is None:
            query = (
                "SELECT min(position), max(position) FROM qworker_messages "
                "WHERE state = 'ready' AND queue = ? AND priority = ?"
            )
            low, high = self._db.execute(query, (queue, priority)).fetchone()
            # An empty queue starts in the middle of nowhere: both ends are free.
            ends = self._known[queue, priority] = [0 if low is None else low, -1 if high is None else high]
        return ends
