"""The SQLite broker's file: connection, schema, transactions. Used by sqlite.py only.

WAL with `synchronous=FULL`: a commit that returned survives a power cut. Several processes of one host share the
file; a write transaction begins with BEGIN IMMEDIATE, so that what it reads cannot change before it writes. Tables
have names of our own, because the file may also hold the results, or an application's data.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from ..core.errors import ConfigError, TransportError
from ..core.sqlite_begin import begin

_T = TypeVar("_T")

_VERSION: Final = 1
_MAGIC: Final = b"SQLite format 3\0"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS qworker_schema (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS qworker_owners (
    owner TEXT PRIMARY KEY,
    ends REAL NOT NULL,         -- on the host's monotonic clock
    lease_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS qworker_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used twice: it is half of the tag
    state TEXT NOT NULL,        -- ready, delayed, inflight, dead
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    position INTEGER NOT NULL,  -- ready: order within queue and priority; inflight: order in which they were taken
    front INTEGER NOT NULL DEFAULT 0,       -- delayed: where to go when due
    due REAL,                   -- delayed: seconds since the epoch
    owner TEXT,                 -- inflight
    receipt INTEGER NOT NULL DEFAULT 0,     -- how often it was taken: the other half of the tag
    started INTEGER NOT NULL DEFAULT 0,     -- the receipt under which a child began to run it
    crashes INTEGER NOT NULL DEFAULT 0,
    died_at REAL,               -- dead: seconds since the epoch
    record TEXT,                -- dead: JSON with reason and details
    task_id BLOB,               -- delayed: by what it can be discarded
    raw BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS qworker_ready ON qworker_messages (queue, priority, position) WHERE state = 'ready';
CREATE INDEX IF NOT EXISTS qworker_delayed ON qworker_messages (due) WHERE state = 'delayed';
CREATE INDEX IF NOT EXISTS qworker_inflight ON qworker_messages (owner) WHERE state = 'inflight';
CREATE INDEX IF NOT EXISTS qworker_dead ON qworker_messages (died_at) WHERE state = 'dead';
"""

# What files of earlier versions lack: columns, a table, an index. They are added without a new format number, because
# processes of those versions may go on using the file: they name the columns that they write, and nothing that they do
# makes these wrong.
_ADDED: Final = {"qworker_messages": {"started": "INTEGER NOT NULL DEFAULT 0", "task_id": "BLOB"}}
_ADDED_LATER: Final = {
    # lock: see unique.py; ends: seconds since the epoch
    "qworker_unique": "CREATE TABLE qworker_unique (lock TEXT PRIMARY KEY, nonce TEXT NOT NULL, ends REAL NOT NULL)",
    # see sqlite_silence.py; the row without `since` tells when a worker was last heard of. On the monotonic clock
    "qworker_silences": "CREATE TABLE qworker_silences (since REAL, till REAL NOT NULL)",
    "qworker_delayed_tasks": (
        "CREATE INDEX qworker_delayed_tasks ON qworker_messages (task_id) WHERE state = 'delayed' AND task_id NOT NULL"
    ),
}

# A connection must not be used, or even closed, in a process forked from the one that opened it (sqlite.org, "How To
# Corrupt An SQLite Database File", 2.6). Those that a fork brought along are kept here so that they are never
# finalised.
_inherited: Final[list[sqlite3.Connection]] = []


class DatabaseFile:
    """One connection, opened on first use and anew after an error or a fork. One thread at a time."""

    def __init__(self, path: str, *, synchronous: str, lock_wait_s: float) -> None:
        # Absolute, because a worker may change its working directory between two connections.
        self._path = os.path.abspath(path)
        self._synchronous = synchronous
        self._lock_wait_s = lock_wait_s
        self._connection: sqlite3.Connection | None = None
        self._pid = 0

    def read(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do something that writes nothing. Raises TransportError."""
        return self._attempt(action)

    def write(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do something in one write transaction, entirely or not at all. Raises TransportError."""
        return self._attempt(lambda db: _transaction(db, action, self._lock_wait_s))

    def close(self) -> None:
        """Close the connection; one that a fork brought along is left alone. Never raises."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._pid != os.getpid():
            _inherited.append(connection)
            return
        with suppress(sqlite3.Error):
            connection.close()

    def obstacle(self) -> str | None:
        """What keeps this file from ever being used, and what to do about it; None when nothing is known to.

        To be asked after a failure.
        """
        folder, file = Path(self._path).parent, Path(self._path)
        if not folder.is_dir():
            return f"{folder} is no directory and cannot be made one; create it, or name another file"
        if file.is_dir():
            return "it is a directory; name a file"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"this user may not write in {folder}; change its owner or mode, or name another file"
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            return "this user may not read and write it; change its owner or mode, or name another file"
        if file.is_file() and not _may_be_database(file):
            return "name another file, or move this one away"
        return None

    def is_open(self) -> bool:
        """Whether this process has a connection."""
        return self._connection is not None and self._pid == os.getpid()

    def _attempt(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return action(self._open())
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise TransportError(f"the broker file {self._path} cannot be used: {error}") from error

    def _open(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        # check_same_thread: the owner may hand the transport from one thread to another, one at a time.
        db = sqlite3.connect(self._path, timeout=self._lock_wait_s, isolation_level=None, check_same_thread=False)
        try:
            self._use_wal(db)
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _use_wal(self, db: sqlite3.Connection) -> None:
        """Switch a new file to WAL. When two processes do so at once SQLite answers "locked" without waiting."""
        deadline = time.monotonic() + self._lock_wait_s
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Create the tables in a new file; refuse a file that a later version has made."""
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'qworker_dead'").fetchone():
            _transaction(db, _create, self._lock_wait_s)
        (version,) = db.execute("SELECT max(version) FROM qworker_schema").fetchone()
        if version > _VERSION:
            raise ConfigError(
                f"the broker file {self._path} was made by a later version of qworker: it has format {version}, this "
                f"version knows {_VERSION}; use the later version, or another file"
            )
        if _missing(db):
            _transaction(db, _add, self._lock_wait_s)


def path_of(url: str) -> str:
    """The file that `sqlite:///relative.db` or `sqlite:////absolute.db` names. Raises ConfigError."""
    plain = url.partition("?")[0]
    host, _, path = plain[len("sqlite://") :].partition("/")
    if host or not path or path.startswith(":"):
        raise ConfigError(f"the broker {plain} names no file; write sqlite:///qworker.db or sqlite:////dir/qworker.db")
    return path


def _may_be_database(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(_MAGIC)) in (_MAGIC, b"")


def _create(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA.split(";\n"):
        if statement.strip():
            db.execute(statement)
    if not db.execute("SELECT 1 FROM qworker_schema").fetchone():
        db.execute("INSERT INTO qworker_schema (version) VALUES (?)", (_VERSION,))


def _missing(db: sqlite3.Connection) -> list[str]:
    """The statements that bring a file of an earlier version up to date."""
    columns = [
        f"ALTER TABLE {table} ADD COLUMN {name} {kind}"
        for table, columns in _ADDED.items()
        for name, kind in columns.items()
        if not db.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, name)).fetchone()
    ]
    known = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    return columns + [statement for name, statement in _ADDED_LATER.items() if name not in known]


def _add(db: sqlite3.Connection) -> None:
    # Asked again inside the transaction: another process may have done it meanwhile.
    for statement in _missing(db):
        db.execute(statement)


def _transaction(db: sqlite3.Connection, action: Callable[[sqlite3.Connection], _T], wait_s: float) -> _T:
    begin(db, wait_s)
    try:
        result = action(db)
        db.execute("COMMIT")
        return result
    except BaseException:
        # Whatever it was, also a signal's exception: nothing of this transaction may stay.
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
