"""A stock Celery client reads from DynamoDB what we stored, and we read what Celery's backend stored."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import celery
import pytest

from qworker.core.settings import Settings
from qworker.results import ResultStore, StoredResult, open_result_store
from qworker.results.asyncresult import AsyncResult


@pytest.fixture
def make_celery(table_url: str) -> Iterator[Callable[..., Any]]:
    made = []

    def make(parameters: str = "", **settings: Any) -> Any:
        app = celery.Celery("client", broker="memory://", backend=table_url + parameters)
        app.conf.update(settings)
        made.append(app)
        return app

    yield make
    for app in made:
        if app.backend._client is not None:
            app.backend._client.close()
        app.close()


@pytest.fixture
def make_store(table_url: str) -> Iterator[Callable[..., ResultStore]]:
    made = []

    def make(**settings: Any) -> ResultStore:
        store = open_result_store(table_url, settings=settings)
        assert store is not None
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def application(table_url: str) -> Any:
    class Application:
        conf = Settings(result_backend=table_url)

    return Application()


def stored(status: str, result: Any, task_id: str = "t1", **more: Any) -> StoredResult:
    meta = {"status": status, "result": result, "traceback": None, "children": [], "task_id": task_id, **more}
    return StoredResult(task_id, json.dumps(meta).encode(), status == "SUCCESS")


@pytest.mark.parametrize("settings", [{}, {"result_compression": "gzip"}, {"result_expires": None}])
@pytest.mark.parametrize("task_id", ["t1", "grün", "it's", 'a "b"', "a\\b"])
def test_celery_reads_our_success(
    make_celery: Callable[..., Any], make_store: Callable[..., ResultStore], settings: dict[str, Any], task_id: str
) -> None:
    make_store(**settings).store([stored("SUCCESS", [1, "grün"], task_id)])

    assert make_celery().AsyncResult(task_id).get(timeout=60, interval=0.05) == [1, "grün"]


def test_celery_raises_our_failure(make_celery: Callable[..., Any], make_store: Callable[..., ResultStore]) -> None:
    description = {"exc_type": "ValueError", "exc_message": ["bad", 42], "exc_module": "builtins"}
    make_store().store([stored("FAILURE", description, traceback="Traceback")])
    result = make_celery().AsyncResult("t1")

    with pytest.raises(ValueError, match="bad"):
        result.get(timeout=60, interval=0.05)
    assert result.traceback == "Traceback"


def test_celery_reads_under_the_same_prefix(
    make_celery: Callable[..., Any], make_store: Callable[..., ResultStore]
) -> None:
    options = {"result_backend_transport_options": {"global_keyprefix": "shop"}}
    make_store(**options).store([stored("SUCCESS", 5)])

    assert make_celery(**options).AsyncResult("t1").get(timeout=60, interval=0.05) == 5


@pytest.mark.parametrize("settings", [{}, {"result_compression": "gzip"}, {"result_extended": True}])
@pytest.mark.parametrize("parameters", ["", "?ttl_seconds=3600"])
def test_we_read_what_celery_stored(
    make_celery: Callable[..., Any], application: Any, settings: dict[str, Any], parameters: str
) -> None:
    make_celery(parameters, **settings).backend.store_result("t1", {"total": 4}, "SUCCESS")

    result = AsyncResult("t1", application)
    assert result.get(timeout=60) == {"total": 4}
    assert result.date_done is not None


def test_we_raise_what_celery_stored_as_a_failure(make_celery: Callable[..., Any], application: Any) -> None:
    make_celery().backend.store_result("t1", ValueError("bad", 42), "FAILURE", traceback="Traceback")

    with pytest.raises(ValueError, match="bad") as raised:
        AsyncResult("t1", application).get(timeout=60)
    assert raised.value.args == ("bad", 42)


def test_a_waiter_sees_what_celery_stores_later(make_celery: Callable[..., Any], application: Any) -> None:
    backend = make_celery().backend
    timer = threading.Timer(0.3, lambda: backend.store_result("t1", 5, "SUCCESS"))
    timer.start()

    assert AsyncResult("t1", application).get(timeout=60) == 5
    timer.join()


@pytest.mark.parametrize("settings", [{}, {"result_compression": "gzip"}])
def test_neither_overwrites_the_others_success(
    make_celery: Callable[..., Any],
    make_store: Callable[..., ResultStore],
    application: Any,
    settings: dict[str, Any],
) -> None:
    backend, store = make_celery(**settings).backend, make_store(**settings)
    backend.store_result("t1", 5, "SUCCESS")
    store.store([stored("FAILURE", None)])
    assert AsyncResult("t1", application).get(timeout=60) == 5

    store.store([stored("SUCCESS", 6)])
    backend.store_result("t1", ValueError("late"), "FAILURE")
    assert AsyncResult("t1", application).get(timeout=60) == 6


def test_other_states_of_celery_give_way(
    make_celery: Callable[..., Any], make_store: Callable[..., ResultStore], application: Any
) -> None:
    backend = make_celery().backend
    backend.store_result("t1", None, "STARTED")
    make_store().store([stored("FAILURE", {"exc_type": "ValueError", "exc_message": ["ours"]})])
    assert AsyncResult("t1", application).failed()

    backend.store_result("t1", 7, "SUCCESS")
    assert AsyncResult("t1", application).get(timeout=60) == 7
