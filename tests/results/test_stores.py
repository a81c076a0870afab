"""One suite for every result store: what is promised in results/base.py."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from qworker.core.errors import ResultStoreError
from qworker.results import ResultStore, StoredResult, open_result_store

from .conftest import Forked, OpenStore
from support.waiting import wait_until


def meta(task_id: str, status: str, result: Any = None) -> bytes:
    date = "2026-11-21T00:35:23.994605+00:00"
    fields = {"status": status, "result": result, "traceback": None, "children": [], "date_done": date}
    return json.dumps({**fields, "task_id": task_id}).encode()


def stored(task_id: str, status: str = "SUCCESS", result: Any = None) -> StoredResult:
    return StoredResult(task_id, meta(task_id, status, result), status == "SUCCESS")


def test_what_was_stored_is_fetched_byte_for_byte(store: ResultStore) -> None:
    store.store([stored("a", result="grün"), stored("b", "FAILURE", {"exc_type": "ValueError"})])

    assert store.fetch("a") == meta("a", "SUCCESS", "grün")
    assert store.fetch("b") == meta("b", "FAILURE", {"exc_type": "ValueError"})


@pytest.mark.parametrize("task_id", ["", "ä b/c", "\ud800", "nul\0", "x" * 5000, "a*[b]?"])
def test_any_text_can_be_a_task_id(store: ResultStore, task_id: str) -> None:
    store.store([stored(task_id), stored("other", result=2)])

    assert store.fetch(task_id) == meta(task_id, "SUCCESS")
    assert store.wait(task_id, 5) == meta(task_id, "SUCCESS")
    store.forget(task_id)
    assert store.fetch(task_id) is None
    assert store.fetch("other") == meta("other", "SUCCESS", 2)


def test_a_task_nobody_has_heard_of_has_no_meta(store: ResultStore) -> None:
    assert store.fetch("nobody") is None


def test_storing_nothing_does_nothing(store: ResultStore) -> None:
    store.store([])


def test_a_large_batch_is_all_there(store: ResultStore, url: str) -> None:
    count = 260 if url.startswith("dynamodb") else 1000  # more than fits into all requests that may run at a time
    store.store([stored(f"t{number}", result=number) for number in range(count)])

    assert all(store.fetch(f"t{number}") == meta(f"t{number}", "SUCCESS", number) for number in range(count))


def test_a_result_of_ten_megabytes_is_kept(store: ResultStore) -> None:
    big = "x" * 10_000_000
    store.store([stored("big", result=big)])

    assert store.fetch("big") == meta("big", "SUCCESS", big)


@pytest.mark.parametrize("late", ["FAILURE", "RETRY", "REVOKED", "STARTED"])
def test_a_success_is_not_overwritten_by_a_later_state(store: ResultStore, late: str) -> None:
    store.store([stored("a", result=1)])
    store.store([stored("a", late)])

    assert store.fetch("a") == meta("a", "SUCCESS", 1)


def test_a_success_of_foreign_layout_is_not_overwritten(store: ResultStore) -> None:
    foreign = b'{"result": 3, "task_id": "a",\n "status" : "SUCCESS"}'
    store.store([StoredResult("a", foreign, True)])
    store.store([stored("a", "FAILURE")])

    assert store.fetch("a") == foreign


def test_a_success_is_overwritten_by_the_success_of_a_new_run(store: ResultStore) -> None:
    store.store([stored("a", result=1)])
    store.store([stored("a", result=2)])

    assert store.fetch("a") == meta("a", "SUCCESS", 2)


@pytest.mark.parametrize("first", ["FAILURE", "RETRY", "STARTED", "SUCCESSFUL"])
def test_other_states_are_overwritten(store: ResultStore, first: str) -> None:
    store.store([stored("a", first)])
    store.store([stored("a", "FAILURE", "later")])

    assert store.fetch("a") == meta("a", "FAILURE", "later")


def test_states_of_one_task_in_one_batch_are_stored_in_their_order(store: ResultStore) -> None:
    store.store([stored("a", "STARTED"), stored("a", "FAILURE"), stored("b", "STARTED"), stored("b")])

    assert store.fetch("a") == meta("a", "FAILURE")
    assert store.fetch("b") == meta("b", "SUCCESS")


def test_garbage_in_the_store_gives_way(store: ResultStore) -> None:
    store.store([StoredResult("a", b"not json", False)])
    store.store([stored("a", "FAILURE")])

    assert store.fetch("a") == meta("a", "FAILURE")


def test_what_was_forgotten_is_gone(store: ResultStore) -> None:
    store.store([stored("a")])
    store.forget("a")

    assert store.fetch("a") is None


def test_results_expire(open_store: OpenStore) -> None:
    store = open_store(result_expires=1)
    before = time.monotonic()
    store.store([stored("a"), stored("b", "FAILURE")])
    assert store.fetch("a") is not None or time.monotonic() - before >= 1

    wait_until(lambda: store.fetch("a") is None and store.fetch("b") is None, "both have expired")


def test_failures_expire_on_their_own_terms(open_store: OpenStore) -> None:
    store = open_store(result_expires=timedelta(days=1), result_failure_expires=1)
    store.store([stored("a"), stored("b", "FAILURE"), stored("c", "RETRY"), stored("d", "FAILURE")])

    wait_until(lambda: store.fetch("b") is None and store.fetch("d") is None, "the failures have expired")
    assert store.fetch("a") is not None
    assert store.fetch("c") is not None


@pytest.mark.parametrize("never", [None, 0])
def test_results_can_be_kept_for_ever(open_store: OpenStore, never: int | None) -> None:
    store = open_store(result_expires=never)
    store.store([stored("a"), stored("b", "FAILURE")])

    assert store.fetch("a") == meta("a", "SUCCESS")
    assert store.fetch("b") == meta("b", "FAILURE")


@pytest.mark.parametrize("method", ["gzip", "bzip2"])
def test_compressed_results_are_read_whatever_the_reader_is_set_to(open_store: OpenStore, method: str) -> None:
    open_store(result_compression=method).store([stored("a", result="x" * 1000)])

    assert open_store().fetch("a") == meta("a", "SUCCESS", "x" * 1000)


def test_a_compressed_success_is_not_overwritten(open_store: OpenStore) -> None:
    open_store(result_compression="gzip").store([stored("a")])
    open_store().store([stored("a", "FAILURE")])

    assert open_store().fetch("a") == meta("a", "SUCCESS")


def test_a_compressed_failure_is_overwritten(open_store: OpenStore) -> None:
    store = open_store(result_compression="gzip")
    store.store([stored("a", "RETRY"), stored("b", "RETRY")])
    store.store([stored("b", "FAILURE"), stored("a")])

    assert store.fetch("a") == meta("a", "SUCCESS")
    assert store.fetch("b") == meta("b", "FAILURE")


def test_waiting_for_what_is_there_returns_at_once(store: ResultStore) -> None:
    store.store([stored("a", result=1)])

    assert store.wait("a", 0) == meta("a", "SUCCESS", 1)


def test_waiting_ends_when_the_time_is_over(store: ResultStore) -> None:
    store.store([stored("a", "STARTED")])
    began = time.monotonic()

    assert store.wait("a", 0.2) is None
    assert time.monotonic() - began >= 0.2


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter on Redis looks at nothing until it is told."""
    monkeypatch.setattr("qworker.results.redis._DISTRUST_S", 1000.0)


@pytest.mark.usefixtures("trust")
@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_waiter_is_woken_by_a_final_state_and_by_no_other(open_store: OpenStore, status: str) -> None:
    waiter = Waiter(open_store(), "a")
    writer = open_store()

    writer.store([stored("a", "STARTED")])
    writer.store([stored("a", "RETRY"), stored("other")])
    assert not waiter.is_done()
    writer.store([stored("a", status, 5)])

    assert waiter.result() == meta("a", status, 5)


@pytest.mark.usefixtures("trust")
def test_a_waiter_is_woken_by_a_compressed_result(open_store: OpenStore) -> None:
    waiter = Waiter(open_store(), "a")

    open_store(result_compression="gzip").store([stored("a")])

    assert waiter.result() == meta("a", "SUCCESS")


@pytest.mark.usefixtures("trust")
def test_one_store_waits_for_one_task_after_another(open_store: OpenStore) -> None:
    writer, reader = open_store(), open_store()
    for number in range(20):
        waiter = Waiter(reader, f"t{number}")
        writer.store([stored(f"t{number}", result=number)])
        assert waiter.result() == meta(f"t{number}", "SUCCESS", number)


def test_garbage_does_not_make_a_waiter_wait(store: ResultStore) -> None:
    store.store([StoredResult("a", b"\xff{", False)])

    assert store.wait("a", 5) == b"\xff{"


def test_a_closed_store_opens_again_by_itself(store: ResultStore) -> None:
    store.store([stored("a")])
    store.close()
    store.close()

    assert store.fetch("a") == meta("a", "SUCCESS")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_gets_connections_of_its_own(store: ResultStore, forked: Forked) -> None:
    store.store([stored("parent")])
    store.wait("nobody", 0.01)

    def child() -> bool:
        store.store([stored("child")])
        return store.fetch("parent") == meta("parent", "SUCCESS") and store.wait("nobody", 0.01) is None

    assert forked(child) == [True]
    assert store.fetch("child") == meta("child", "SUCCESS")
    store.store([stored("parent", result=2)])
    assert store.fetch("parent") == meta("parent", "SUCCESS", 2)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_many_processes_write_at_once(open_store: OpenStore, forked: Forked, url: str) -> None:
    rounds = 10 if url.startswith("dynamodb") else 50  # there each result is a request

    def writer(name: int) -> bool:
        mine = open_result_store(url, settings={})
        assert mine is not None
        for number in range(rounds):
            mine.store([stored(f"{name}-{number}-{part}") for part in range(5)])
        return True

    assert forked(*(lambda name=name: writer(name) for name in range(4))) == [True] * 4

    store = open_store()
    assert all(store.fetch(f"{n}-{i}-{p}") for n in range(4) for i in range(rounds) for p in range(5))


class TestSqliteOnly:
    def test_expired_rows_are_deleted_now_and_then(self, tmp_path: Any) -> None:
        path = f"{tmp_path}/results.db"
        old = open_result_store(f"sqlite:///{path}", settings={"result_expires": 1})
        assert old is not None
        old.store([stored(f"t{number}") for number in range(2500)])
        wait_until(lambda: old.fetch("t0") is None, "they have expired")

        fresh = open_result_store(f"sqlite:///{path}", settings={})
        assert fresh is not None
        for _ in range(3):  # a bounded number of rows each time
            fresh.store([stored("new")])

        with sqlite3.connect(path) as db:
            assert db.execute("SELECT count(*) FROM qworker_results").fetchone() == (1,)
        db.close()
        fresh.close()
        old.close()

    def test_the_folder_is_made(self, tmp_path: Any) -> None:
        store = open_result_store(f"sqlite:///{tmp_path}/deep/er/results.db", settings={})
        assert store is not None
        store.store([stored("a")])

        assert store.fetch("a") is not None
        store.close()

    def test_a_file_that_is_no_database_is_a_clear_error(self, tmp_path: Any) -> None:
        path = tmp_path / "results.db"
        path.write_text("this is a letter to a friend, of some length " * 100)
        store = open_result_store(f"sqlite:///{path}", settings={})
        assert store is not None

        with pytest.raises(ResultStoreError, match=r"results\.db cannot be used"):
            store.connect()
        assert path.read_text().startswith("this is a letter")


class Waiter:
    """A thread that waits for a task; made, it is already waiting."""

    def __init__(self, store: ResultStore, task_id: str) -> None:
        self._found: bytes | None = None
        self._thread = threading.Thread(target=lambda: self._wait(store, task_id), daemon=True)
        self._thread.start()
        self._thread.join(0.05)

    def is_done(self) -> bool:
        self._thread.join(0.1)
        return not self._thread.is_alive()

    def result(self) -> bytes | None:
        self._thread.join(50)
        assert not self._thread.is_alive(), "nobody has told it"
        return self._found

    def _wait(self, store: ResultStore, task_id: str) -> None:
        self._found = store.wait(task_id, 600)  # when its time is over it looks once more by itself
