"""One connection to a SQLite file that several processes share: opened on first use, anew after an error or a fork.

The file is in WAL mode, so that readers and the writer do not wait for each other; a write transaction begins with
BEGIN IMMEDIATE, so that what it reads cannot change before it writes. Called by the SQLite broker and the SQLite
result store, who bring their tables and their kind of error.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from .sqlite_begin import begin

_T = TypeVar("_T")

# A connection must not be used, or even closed, in a process forked from the one that opened it (sqlite.org, "How To
# Corrupt An SQLite Database File", 2.6). Those that a fork brought along are kept here so that they are never
# finalised.
_inherited: Final[list[sqlite3.Connection]] = []


class SqliteFile:
    """`prepare` is called with each new connection, in WAL mode; `trouble` makes the error to raise of a text.

    One thread at a time. `lock_wait_s`: how long another process may hold the file.
    """

    def __init__(
        self,
        path: str,
        *,
        lock_wait_s: float,
        prepare: Callable[[sqlite3.Connection], None],
        trouble: Callable[[str], Exception],
    ) -> None:
        #: Absolute, because a process may change its working directory between two connections.
        self.path: Final = os.path.abspath(path)
        self.lock_wait_s: Final = lock_wait_s
        self._prepare = prepare
        self._trouble = trouble
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._pid = 0

    def read(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do something that writes nothing. Raises the owner's error."""
        try:
            return action(self._open())
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._trouble(f"{self.path} cannot be used: {error}") from error

    def write(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do something in one write transaction, entirely or not at all. Raises the owner's error."""
        return self.read(lambda db: transaction(db, action, self.lock_wait_s))

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

    def is_replaced(self) -> bool:
        """Whether the file that is open here is no longer the one of this name: who opens it now finds another."""
        return self.is_open() and self._identity != _identity(self.path)

    def is_open(self) -> bool:
        """Whether this process has a connection."""
        return self._connection is not None and self._pid == os.getpid()

    def _open(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        if self._connection is None:
            before = _identity(self.path)  # a file that is replaced while we open it is found out by the next look
            self._connection = self._connect()
            self._identity = before or _identity(self.path)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        # check_same_thread: the owner may be handed from one thread to another, one at a time.
        db = sqlite3.connect(self.path, timeout=self.lock_wait_s, isolation_level=None, check_same_thread=False)
        try:
            self._use_wal(db)
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _use_wal(self, db: sqlite3.Connection) -> None:
        """Switch a new file to WAL. When two processes do so at once SQLite answers "locked" without waiting."""
        deadline = time.monotonic() + self.lock_wait_s
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def _identity(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def transaction(db: sqlite3.Connection, action: Callable[[sqlite3.Connection], _T], wait_s: float) -> _T:
    """Do `action` in one write transaction, entirely or not at all; `wait_s`: see `begin`."""
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
