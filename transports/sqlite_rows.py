"""Which rows a reserve takes and where rows go: the ordering rules of the SQLite broker. Used by sqlite.py only.

Within a queue and a priority rows stand in the order of `position`: new ones get the highest plus one, what is given
back gets the lowest minus one. All functions run inside the caller's write transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from .base import Envelope

#: Messages moved by one housekeeping transaction.
BATCH: Final = 500
_BATCH_BYTES: Final = 16 * 1024 * 1024

_INSERT: Final = """
INSERT INTO qworker_messages (state, queue, priority, position, front, due, raw) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_READY: Final = """
UPDATE qworker_messages SET state = 'ready', owner = NULL, due = NULL, front = 0, position = ? WHERE id = ?
"""


def insert(db: sqlite3.Connection, envelopes: Sequence[Envelope], now: float) -> None:
    """Add messages, those with a due time ahead as delayed ones."""
    later = [e for e in envelopes if e.due is not None and e.due > now]
    db.executemany(_INSERT, [("delayed", e.queue, e.priority, 0, e.front, e.due, e.raw) for e in later])
    soon = [e for e in envelopes if e.due is None or e.due <= now]
    ends = _Ends(db)
    rows = [(e, ends.back(e.queue, e.priority)) for e in soon if not e.front]
    # The first one comes to be the next: the last one is put in front first.
    rows += [(e, ends.front(e.queue, e.priority)) for e in reversed(soon) if e.front]
    db.executemany(_INSERT, [("ready", e.queue, e.priority, at, 0, None, e.raw) for e, at in rows])


def place(db: sqlite3.Connection, rows: Sequence[int], *, front: bool) -> None:
    """Make rows ready: at the back in this order, or at the front so that the first one is the next."""
    ends = _Ends(db)
    for row in reversed(rows) if front else rows:
        queue, priority = db.execute("SELECT queue, priority FROM qworker_messages WHERE id = ?", (row,)).fetchone()
        position = ends.front(queue, priority) if front else ends.back(queue, priority)
        db.execute(_READY, (position, row))


def choose(db: sqlite3.Connection, queues: Iterable[str], limit: int, *, fair: bool) -> list[int]:
    """The rows to take: lowest priority number first, then by queue, in turn when `fair`; oldest first in each."""
    query = (
        "SELECT id, priority, length(raw) FROM qworker_messages "
        "WHERE state = 'ready' AND queue = ? ORDER BY priority, position LIMIT ?"
    )
    steps: dict[int, list[list[tuple[int, int]]]] = {}
    for queue in queues:
        found: dict[int, list[tuple[int, int]]] = {}
        for row, priority, size in db.execute(query, (queue, limit)):
            found.setdefault(priority, []).append((row, size))
        for priority, rows in found.items():
            steps.setdefault(priority, []).append(rows)
    arrange = _in_turn if fair else _one_by_one
    ordered = [pair for _, groups in sorted(steps.items()) for pair in arrange(groups)]
    return _within_bytes(ordered[:limit])


def _one_by_one(groups: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Everything of the first group, then of the next."""
    return [pair for group in groups for pair in group]


def _in_turn(groups: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[int, int]]:
    """One from each group, then one from each again."""
    longest = max(map(len, groups))
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def _within_bytes(pairs: Sequence[tuple[int, int]]) -> list[int]:
    """As many rows as fit into one call's bytes, but at least one."""
    chosen: list[int] = []
    room = _BATCH_BYTES
    for row, size in pairs:
        if chosen and size > room:
            break
        chosen.append(row)
        room -= size
    return chosen


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
