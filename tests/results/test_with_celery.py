"""A stock Celery client reads what we stored and is woken by it; we read what Celery's backend stored."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from qworker.core.settings import Settings
from qworker.results import ResultStore, StoredResult, open_result_store
from qworker.results.asyncresult import AsyncResult

from support import RedisServer
from support.celery_client import celery_client

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Celery calls redis-py's setex


@pytest.fixture
def make_celery(redis_server: RedisServer) -> Iterator[Callable[..., Any]]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(celery_client("memory://", redis_server.url, **settings))


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[ResultStore]:
    with redis_server.client() as client:
        client.flushall()
    store = open_result_store(redis_server.url, settings={})
    assert store is not None
    yield store
    store.close()


class Application:
    def __init__(self, url: str, **settings: Any) -> None:
        self.conf = Settings(result_backend=url, **settings)


def stored(status: str, result: Any, **more: Any) -> StoredResult:
    meta = {"status": status, "result": result, "traceback": None, "children": [], "task_id": "t1", **more}
    return StoredResult("t1", json.dumps(meta).encode(), status == "SUCCESS")


def test_celery_reads_our_success(make_celery: Callable[..., Any], store: ResultStore) -> None:
    store.store([stored("SUCCESS", [1, "grün"])])

    assert make_celery().AsyncResult("t1").get(timeout=40) == [1, "grün"]


def test_celery_raises_our_failure(make_celery: Callable[..., Any], store: ResultStore) -> None:
    description = {"exc_type": "ValueError", "exc_message": ["bad", 42], "exc_module": "builtins"}
    store.store([stored("FAILURE", description, traceback="Traceback")])
    result = make_celery().AsyncResult("t1")

    with pytest.raises(ValueError, match="bad"):
        result.get(timeout=40)
    assert result.traceback == "Traceback"


def test_a_celery_client_that_already_waits_is_woken(make_celery: Callable[..., Any], store: ResultStore) -> None:
    result = make_celery().AsyncResult("t1")
    timer = threading.Timer(0.3, lambda: store.store([stored("SUCCESS", 5)]))
    timer.start()

    # It polls nothing: without our PUBLISH this would time out.
    assert result.get(timeout=40) == 5
    timer.join()


def test_celery_reads_our_compressed_result(make_celery: Callable[..., Any], redis_server: RedisServer) -> None:
    store = open_result_store(redis_server.url, settings={"result_compression": "gzip"})
    assert store is not None
    store.store([stored("SUCCESS", "x" * 1000)])
    store.close()

    assert make_celery().AsyncResult("t1").get(timeout=40) == "x" * 1000


def test_celery_reads_under_the_same_prefix(make_celery: Callable[..., Any], redis_server: RedisServer) -> None:
    options = {"result_backend_transport_options": {"global_keyprefix": "shop"}}
    store = open_result_store(redis_server.url, settings=options)
    assert store is not None
    store.store([stored("SUCCESS", 5)])
    store.close()

    assert make_celery(**options).AsyncResult("t1").get(timeout=40) == 5


@pytest.mark.parametrize("settings", [{}, {"result_compression": "gzip"}, {"result_extended": True}])
def test_we_read_what_celery_stored(
    make_celery: Callable[..., Any], store: ResultStore, redis_server: RedisServer, settings: dict[str, Any]
) -> None:
    make_celery(**settings).backend.store_result("t1", {"total": 4}, "SUCCESS")

    result = AsyncResult("t1", Application(redis_server.url))
    assert result.get(timeout=40) == {"total": 4}
    assert result.date_done is not None


def test_we_raise_what_celery_stored_as_a_failure(
    make_celery: Callable[..., Any], store: ResultStore, redis_server: RedisServer
) -> None:
    make_celery().backend.store_result("t1", ValueError("bad", 42), "FAILURE", traceback="Traceback")

    with pytest.raises(ValueError, match="bad") as raised:
        AsyncResult("t1", Application(redis_server.url)).get(timeout=40)
    assert raised.value.args == ("bad", 42)


def test_we_are_woken_by_celery(make_celery: Callable[..., Any], store: ResultStore, redis_server: RedisServer) -> None:
    backend = make_celery().backend
    timer = threading.Timer(0.3, lambda: backend.store_result("t1", 5, "SUCCESS"))
    timer.start()

    assert AsyncResult("t1", Application(redis_server.url)).get(timeout=40) == 5
    timer.join()


def test_neither_overwrites_the_others_success(
    make_celery: Callable[..., Any], store: ResultStore, redis_server: RedisServer
) -> None:
    backend = make_celery().backend
    backend.store_result("t1", 5, "SUCCESS")
    store.store([stored("FAILURE", None)])
    assert AsyncResult("t1", Application(redis_server.url)).get(timeout=40) == 5

    store.store([stored("SUCCESS", 6)])
    backend.store_result("t1", ValueError("late"), "FAILURE")
    assert AsyncResult("t1", Application(redis_server.url)).get(timeout=40) == 6
