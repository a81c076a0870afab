"""Results in a SQLite file: the embedded default, several processes on one host. Opened by `open_result_store`.

One table, one row per task; a batch is one transaction. The file may be the broker's: the table has its own name and
no statement here touches another one. Waiting is reading `PRAGMA data_version`, which changes when another connection
has committed.

A result must be as durable as the ack that follows it. In the broker's file `synchronous=NORMAL` does that: a power cut
may take the last commits, but never an earlier one without the later ones. In a file of its own it takes FULL.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Final

from ..core.errors import ResultStoreError
from ..core.sqlite_file import SqliteFile
from .base import SettingsLike, StoredResult
from .expiry import expiry_from
from .meta import compress, decompress, is_ready, status_of

#: How long another process may hold the file, unless `result_backend_transport_options` has a `socket_timeout`: a
#: worker cuts it to what its lease allows, because the same thread renews that.
_LOCK_WAIT_S: Final = 10.0
_PURGE_EVERY_S: Final = 60.0
_PURGE_ROWS: Final = 1000
_POLL_FIRST_S: Final = 0.002
_POLL_LAST_S: Final = 0.015

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS qworker_results (
    task_id TEXT PRIMARY KEY,
    is_success INTEGER NOT NULL,
    expires REAL,
    meta BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS qworker_results_expires ON qworker_results (expires) WHERE expires IS NOT NULL;
"""
_STORE: Final = """
INSERT INTO qworker_results (task_id, is_success, expires, meta) VALUES (?, ?, ?, ?)
ON CONFLICT (task_id) DO UPDATE SET is_success = excluded.is_success, expires = excluded.expires, meta = excluded.meta
WHERE excluded.is_success OR NOT qworker_results.is_success OR qworker_results.expires <= ?
"""
_FETCH: Final = "SELECT meta FROM qworker_results WHERE task_id = ? AND (expires IS NULL OR expires > ?)"
_PURGE: Final = """
DELETE FROM qworker_results WHERE rowid IN (SELECT rowid FROM qworker_results WHERE expires <= ? LIMIT ?)
"""


class SqliteResultStore:
    """A ResultStore in one file. One thread at a time; after a fork the child gets a connection of its own."""

    def __init__(self, path: str, settings: SettingsLike) -> None:
        self._expiry = expiry_from(settings)
        self._compression = settings.get("result_compression")
        options = settings.get("result_backend_transport_options") or {}
        self._file = SqliteFile(
            path,
            lock_wait_s=options.get("socket_timeout") or _LOCK_WAIT_S,
            prepare=_prepare,
            trouble=lambda what: ResultStoreError(f"the result store {what}"),
        )
        self._next_purge = 0.0

    def prepare(self) -> None:
        """Nothing: the file is made when it is needed."""

    def connect(self) -> None:
        """Open the file, and create it and the table if need be."""
        self._file.close()
        self._file.read(lambda db: None)

    def store(self, results: Sequence[StoredResult]) -> None:
        """Write all of them in one transaction; a stored SUCCESS stays unless a newer SUCCESS comes."""
        now = time.time()
        rows = [self._row(result, now) for result in results]
        self._follow()
        self._file.write(lambda db: self._write(db, rows, now))

    def fetch(self, task_id: str) -> bytes | None:
        """The stored meta, or None."""
        self._follow()
        row = self._file.read(lambda db: db.execute(_FETCH, (_key(task_id), time.time())).fetchone())
        return decompress(row[0]) if row else None

    def wait(self, task_id: str, timeout_s: float | None) -> bytes | None:
        """The meta once its status is final, or None when the time is over. Sees a result within about 15 ms."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s, seen = _POLL_FIRST_S, -1
        while True:
            if self._follow():
                seen = -1
            version = self._version()
            if version != seen:
                seen, meta = version, self.fetch(task_id)
                if meta is not None and is_ready(meta):
                    return meta
            left_s = pause_s if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                return None
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, _POLL_LAST_S)

    def forget(self, task_id: str) -> None:
        """Delete the stored meta."""
        self._file.write(lambda db: db.execute("DELETE FROM qworker_results WHERE task_id = ?", (_key(task_id),)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _follow(self) -> bool:
        """Leave a file that was deleted or replaced: nobody else looks there; whether it was."""
        is_replaced = self._file.is_replaced()
        if is_replaced:
            self._file.close()
        return is_replaced

    def _row(self, result: StoredResult, now: float) -> tuple[str, bool, float | None, bytes, float]:
        failed = not result.is_success and status_of(result.meta) == "FAILURE"
        ttl = self._expiry.failure_s if failed else self._expiry.s
        expires = None if ttl is None else now + ttl
        return _key(result.task_id), result.is_success, expires, compress(result.meta, self._compression), now

    def _write(self, db: sqlite3.Connection, rows: Sequence[tuple[object, ...]], now: float) -> None:
        db.executemany(_STORE, rows)
        self._purge(db, now)

    def _purge(self, db: sqlite3.Connection, now: float) -> None:
        if time.monotonic() < self._next_purge:
            return
        deleted = db.execute(_PURGE, (now, _PURGE_ROWS)).rowcount
        # A full batch: there is more, go on with the next store instead of in a minute.
        self._next_purge = 0.0 if deleted == _PURGE_ROWS else time.monotonic() + _PURGE_EVERY_S

    def _version(self) -> int:
        version: int = self._file.read(lambda db: db.execute("PRAGMA data_version").fetchone()[0])
        return version


def _key(task_id: str) -> str:
    # A task id may hold anything that JSON can say, even half a surrogate pair: it must not spoil its batch.
    return task_id.encode("utf-8", "backslashreplace").decode()


def _prepare(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA synchronous = {'NORMAL' if _is_brokers(db) else 'FULL'}")
    db.executescript(_SCHEMA)


def _is_brokers(db: sqlite3.Connection) -> bool:
    found = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'qworker_messages'").fetchone()
    return bool(found[0])
