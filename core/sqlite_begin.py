"""Beginning a write transaction in a SQLite file that other processes write to as well.

SQLite's own way to wait for the lock makes ever longer pauses, up to 0.1 s, in which others take it again and again:
beside one busy writer the worst of 200 waits was 0.33 s, and an ack that waits is a task that a crash repeats. With
even pauses the worst was 0.01 s. Called by the SQLite broker and the SQLite result store.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Final

_PAUSE_S: Final = 0.001


def begin(db: sqlite3.Connection, wait_s: float) -> None:
    """Run BEGIN IMMEDIATE, waiting up to `wait_s` for the lock. Raises sqlite3.OperationalError after that."""
    deadline = time.monotonic() + wait_s
    db.execute("PRAGMA busy_timeout = 0")
    try:
        while not _has_begun(db, deadline):
            time.sleep(_PAUSE_S)
    finally:
        db.execute(f"PRAGMA busy_timeout = {round(wait_s * 1000)}")


def _has_begun(db: sqlite3.Connection, deadline: float) -> bool:
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error) or time.monotonic() > deadline:
            raise
        return False
    return True
