"""A result file that another process holds: whoever stores results also renews claims, and must not wait for long."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from qworker.core.errors import ResultStoreError
from qworker.results import StoredResult, open_result_store

from support.stopwatch import Stopwatch

RESULT = StoredResult("one", b'{"status": "SUCCESS", "result": 1}', True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def held(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, while somebody writes to it and does not end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_a_held_file_is_waited_for_no_longer_than_a_worker_can_spare(path: Path, held: sqlite3.Connection) -> None:
    settings = {"result_backend_transport_options": {"socket_timeout": 0.1}}
    store = open_result_store(f"sqlite:///{path}", settings=settings)
    assert store is not None
    watch = Stopwatch()
    with pytest.raises(ResultStoreError, match="locked"):
        store.store([RESULT])
    assert watch.s < 5  # the default is 10 s

    held.execute("ROLLBACK")
    store.store([RESULT])
    assert store.fetch("one") is not None
    store.close()


def test_a_file_that_is_replaced_is_left_by_who_stores_and_by_who_looks(path: Path) -> None:
    writer, reader = (open_result_store(f"sqlite:///{path}", settings={}) for _ in range(2))
    assert writer is not None
    assert reader is not None
    writer.store([RESULT])
    assert reader.fetch("one") is not None
    for file in path.parent.iterdir():
        file.unlink()
    assert reader.fetch("one") is None
    writer.store([RESULT])
    assert reader.fetch("one") is not None
