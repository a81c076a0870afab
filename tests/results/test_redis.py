"""What only the Redis store promises: Celery's layout, its neighbours on the server, and how it bears an outage."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker.core.errors import ResultStoreError
from qworker.results import ResultStore, StoredResult, open_result_store

from support import RedisServer
from support.proxy import Proxy
from support.stopwatch import Stopwatch

KEY = "celery-task-meta-"


@pytest.fixture
def open_on() -> Iterator[Callable[..., ResultStore]]:
    opened: list[ResultStore] = []

    def make(url: str, **settings: Any) -> ResultStore:
        store = open_result_store(url, settings=settings)
        assert store is not None
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


def stored(task_id: str, status: str = "SUCCESS", result: Any = None) -> StoredResult:
    meta = json.dumps({"status": status, "result": result, "task_id": task_id}).encode()
    return StoredResult(task_id, meta, status == "SUCCESS")


def test_keys_and_time_to_live_are_celerys(redis_server: RedisServer, open_on: Callable[..., ResultStore]) -> None:
    before = time.monotonic()
    open_on(redis_server.url).store([stored("a"), stored("b", "FAILURE")])
    open_on(redis_server.url, result_expires=60, result_failure_expires=600).store(
        [stored("c"), stored("d", "FAILURE")]
    )
    open_on(redis_server.url, result_expires=None).store([stored("e")])

    with redis_server.client() as client:
        assert client.get(KEY + "a") == stored("a").meta
        left = [client.ttl(KEY + name) for name in "abcde"]
        passed_s = time.monotonic() - before
        for left_s, wanted in zip(left, [86400, 86400, 60, 600], strict=False):
            assert wanted - passed_s - 1 <= left_s <= wanted
        assert left[4] == -1


@pytest.mark.parametrize(
    ("given", "before"), [("RPX", "RPX_"), ("RPX:", "RPX:"), ("p-", "p-"), ("p.", "p."), ("p_", "p_")]
)
def test_the_global_prefix_stands_before_key_and_channel(
    redis_server: RedisServer, open_on: Callable[..., ResultStore], given: str, before: str
) -> None:
    store = open_on(redis_server.url, result_backend_transport_options={"global_keyprefix": given})
    with redis_server.client() as client, client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.psubscribe("*")
        listener.get_message(timeout=20)
        store.store([stored("a")])

        assert client.get(before + KEY + "a") == stored("a").meta
        heard = listener.get_message(timeout=20)
        assert (heard["channel"], heard["data"]) == ((before + KEY + "a").encode(), stored("a").meta)


def test_a_batch_is_one_command(own_redis: RedisServer, open_on: Callable[..., ResultStore]) -> None:
    store = open_on(own_redis.url)
    store.store([stored("warm-up")])
    with own_redis.client() as client:
        client.config_resetstat()
        store.store([stored(f"t{number}", "FAILURE" if number % 3 else "SUCCESS") for number in range(200)])

        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1


def test_the_script_is_sent_again_when_the_server_has_forgotten_it(
    redis_server: RedisServer, open_on: Callable[..., ResultStore]
) -> None:
    store = open_on(redis_server.url)
    store.store([stored("a")])
    with redis_server.client() as client:
        client.script_flush()

    store.store([stored("b")])

    assert store.fetch("b") == stored("b").meta


def test_a_connection_that_the_server_closed_is_replaced_without_a_word(
    redis_server: RedisServer, open_on: Callable[..., ResultStore]
) -> None:
    store = open_on(redis_server.url)
    store.wait("nobody", 0.01)
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub")

    store.store([stored("a")])

    assert store.wait("a", 5) == stored("a").meta
    assert store.wait("nobody", 0.01) is None


def test_a_server_that_is_away_is_an_error_until_it_is_back(
    own_redis: RedisServer, open_on: Callable[..., ResultStore]
) -> None:
    store = open_on(own_redis.url)
    store.store([stored("a")])
    own_redis.stop()

    for call in (lambda: store.store([stored("b")]), lambda: store.fetch("a"), lambda: store.wait("a", 5)):
        with pytest.raises(ResultStoreError, match=f"the result store redis://127.0.0.1:{own_redis.port}/0"):
            call()

    own_redis.start()
    store.store([stored("b")])
    assert store.fetch("b") == stored("b").meta


def test_a_server_that_says_nothing_is_an_error_in_time(
    own_redis: RedisServer, open_on: Callable[..., ResultStore]
) -> None:
    store = open_on(own_redis.url, redis_socket_timeout=2.0)
    store.store([stored("a")])
    own_redis.freeze()
    watch = Stopwatch()
    try:
        with pytest.raises(ResultStoreError, match="did not answer within 2 s"):
            store.store([stored("b")])
    finally:
        own_redis.thaw()

    assert watch.s < 10
    store.store([stored("c")])
    assert store.fetch("c") == stored("c").meta


def test_a_password_that_is_wrong_is_said_and_not_shown(
    own_redis: RedisServer, open_on: Callable[..., ResultStore]
) -> None:
    with own_redis.client() as client:
        client.config_set("requirepass", "right")
    open_on(f"redis://:right@127.0.0.1:{own_redis.port}/0").store([stored("a")])

    with pytest.raises(ResultStoreError, match="password") as refusal:
        open_on(f"redis://:hunter2@127.0.0.1:{own_redis.port}/0").connect()
    assert "hunter2" not in str(refusal.value)


def test_a_refused_write_is_an_error_and_the_store_goes_on(
    own_redis: RedisServer, open_on: Callable[..., ResultStore]
) -> None:
    store = open_on(own_redis.url)
    store.store([stored("a")])
    with own_redis.client() as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(ResultStoreError, match="memory is full"):
            store.store([stored("b")])
        client.config_set("maxmemory", "0")

    store.store([stored("b")])
    assert store.fetch("b") == stored("b").meta


def test_a_waiter_notices_a_result_even_when_nobody_told_it(
    redis_server: RedisServer, open_on: Callable[..., ResultStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qworker.results.redis._DISTRUST_S", 0.1)
    store = open_on(redis_server.url)
    assert store.wait("silent", 0.01) is None

    def write_silently() -> None:
        with redis_server.client() as client:
            client.set(KEY + "silent", stored("silent").meta)

    writer = threading.Timer(0.2, write_silently)
    writer.start()
    assert store.wait("silent", 10) == stored("silent").meta
    writer.join()


def test_a_unix_socket_will_do(tmp_path: Any, open_on: Callable[..., ResultStore]) -> None:
    path = tmp_path / "r.sock"
    with RedisServer("--unixsocket", str(path)) as server:
        store = open_on(f"redis+socket://{path}?virtual_host=3")
        store.store([stored("a")])
        with server.client() as client:
            client.select(3)
            assert client.get(KEY + "a") == stored("a").meta


def ends_the_connection_after(proxy: Proxy, seconds: float) -> None:
    """The next words of a client are held for so long; then its connection ends and they never arrive."""

    def hold() -> None:
        time.sleep(seconds)
        proxy.cut()

    proxy.interrupt_before(b"EVALSHA", hold)


@pytest.mark.parametrize(("after_s", "arrives"), [(0.0, True), (1.0, False)])
def test_a_result_is_sent_once_more_only_if_the_connection_broke_at_once(
    redis_server: RedisServer,
    open_on: Callable[..., ResultStore],
    after_s: float,
    arrives: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a wait the worker may have lost its lease, and another one stored the result that counts."""
    if arrives:
        monkeypatch.setattr("qworker.results.redis_link._AT_ONCE_S", 30.0)  # on a busy machine, too
    with Proxy(redis_server.port) as proxy, redis_server.client() as client:
        client.delete(KEY + "late")
        store = open_on(proxy.url)
        store.store([stored("early")])
        ends_the_connection_after(proxy, after_s)
        if arrives:
            store.store([stored("late")])
        else:
            with pytest.raises(ResultStoreError):
                store.store([stored("late")])
        assert client.exists(KEY + "late") == arrives
