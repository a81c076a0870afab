"""The SQLite broker's file: its tables, what files of earlier versions lack, and what may keep it from being used.

`synchronous=FULL`: a commit that returned survives a power cut. The tables have names of our own, because the file may
also hold the results, or an application's data. Used by sqlite.py only.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from ..core.errors import ConfigError, TransportError
from ..core.sqlite_file import SqliteFile, transaction

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


def open_file(path: str, *, synchronous: str, lock_wait_s: float) -> SqliteFile:
    """The file as a broker, opened and given its tables on first use. What fails raises TransportError."""
    path = os.path.abspath(path)

    def prepare(db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA synchronous = {synchronous}")
        _prepare(db, path, lock_wait_s)

    return SqliteFile(
        path,
        lock_wait_s=lock_wait_s,
        prepare=prepare,
        trouble=lambda what: TransportError(f"the broker file {what}"),
    )


def obstacle(path: str) -> str | None:
    """What keeps this file from ever being used, and what to do about it; None when nothing is known to.

    To be asked after a failure.
    """
    folder, file = Path(path).parent, Path(path)
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


def _prepare(db: sqlite3.Connection, path: str, lock_wait_s: float) -> None:
    """Create the tables in a new file; refuse a file that a later version has made."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'qworker_dead'").fetchone():
        transaction(db, _create, lock_wait_s)
    (version,) = db.execute("SELECT max(version) FROM qworker_schema").fetchone()
    if version > _VERSION:
        raise ConfigError(
            f"the broker file {path} was made by a later version of qworker: it has format {version}, this "
            f"version knows {_VERSION}; use the later version, or another file"
        )
    if _missing(db):
        transaction(db, _add, lock_wait_s)


def _create(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA.split(";\n"):
        if statement.strip():
            db.execute(statement)
    if not db.execute("SELECT 1 FROM qworker_schema").fetchone():
        db.execute("INSERT INTO qworker_schema (version) VALUES (?)", (_VERSION,))
        # A file that replaces another one begins with other numbers: a late ack of the old file's first message must
        # not settle the first one here.
        first = "INSERT INTO sqlite_sequence (name, seq) VALUES ('qworker_messages', ?)"
        db.execute(first, (time.time_ns() // 1_000_000,))


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
