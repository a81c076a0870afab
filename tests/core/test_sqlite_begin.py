"""Whoever waits for a SQLite file's lock gets it soon after it is free, however busy the others are."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from qworker.core.sqlite_begin import begin


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "t.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
    return path


def test_the_lock_is_looked_for_as_often_after_a_long_wait(path: Path) -> None:
    """After half a second SQLite itself would look only ten times a second, and a look would be no statement."""
    looks: list[float] = []
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as holder,
        closing(sqlite3.connect(path, isolation_level=None)) as db,
    ):
        holder.execute("BEGIN IMMEDIATE")

        def look(statement: str) -> None:
            if "BEGIN" in statement:
                looks.append(time.monotonic())
            if len(looks) >= 20 and looks[-1] > looks[0] + 0.6 and holder.in_transaction:
                holder.execute("COMMIT")

        db.set_trace_callback(look)
        begin(db, 60.0)
        assert db.in_transaction
    # Of these pauses a busy machine makes some longer, but not all of them.
    assert min(after - before for before, after in pairwise(looks[-10:])) < 0.03


def test_the_wait_has_an_end_and_other_statements_go_on_waiting_as_before(path: Path) -> None:
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as holder,
        closing(sqlite3.connect(path, isolation_level=None)) as db,
    ):
        holder.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            begin(db, 0.1)
        assert 0.1 <= time.monotonic() - began < 60.0
        assert db.execute("PRAGMA busy_timeout").fetchone() == (100,)


def test_another_error_is_not_waited_for(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
            begin(db, 10.0)
