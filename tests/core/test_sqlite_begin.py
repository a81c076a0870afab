"""Whoever waits for a SQLite file's lock gets it soon after it is free, however busy the others are."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from qworker.core.sqlite_begin import begin

from support.stopwatch import Stopwatch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "t.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
    return path


def test_the_lock_is_had_soon_after_a_long_wait(path: Path) -> None:
    """After half a second SQLite itself would look only ten times a second."""
    since_free = Stopwatch()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN IMMEDIATE")

        def free() -> None:
            nonlocal since_free
            time.sleep(0.53)
            since_free = Stopwatch()
            holder.execute("COMMIT")

        thread = threading.Thread(target=free)
        thread.start()
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            begin(db, 10.0)
            had_after_s = since_free.s
        thread.join()
    assert had_after_s < 0.03


def test_the_wait_has_an_end_and_other_statements_go_on_waiting_as_before(path: Path) -> None:
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as holder,
        closing(sqlite3.connect(path, isolation_level=None)) as db,
    ):
        holder.execute("BEGIN IMMEDIATE")
        began, watch = time.monotonic(), Stopwatch()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            begin(db, 0.1)
        assert time.monotonic() - began >= 0.1
        assert watch.s < 1.0
        assert db.execute("PRAGMA busy_timeout").fetchone() == (100,)


def test_another_error_is_not_waited_for(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
            begin(db, 10.0)
