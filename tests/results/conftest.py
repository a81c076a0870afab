"""A real redis-server and a moto server on free loopback ports, and every kind of store."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qworker.results import ResultStore, open_result_store

from support import RedisServer
from support.moto_server import LOGIN, MotoServer, create_table
from support.sqs_proxy import SqsProxy

OpenStore = Callable[..., ResultStore]
Forked = Callable[..., list[bool]]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for one test, which may do to it what it likes."""
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def dynamodb_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine moto takes seconds for an answer; tests about time-outs set their own."""
    monkeypatch.setattr("qworker.results.dynamodb_url._LONGEST_S", 60.0)


@pytest.fixture
def table_url(moto_server: MotoServer) -> str:
    """A new table of DynamoDB."""
    name = f"results-{uuid.uuid4()}"
    client = moto_server.client_of("dynamodb")
    create_table(client, name)
    client.close()
    return f"dynamodb://{LOGIN}@{moto_server.place}/{name}"


@pytest.fixture(params=["redis", "sqlite", "dynamodb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/results.db"
    if request.param == "dynamodb":
        return str(request.getfixturevalue("table_url"))
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:
        client.flushall()
    return server.url


@pytest.fixture
def open_store(url: str) -> Iterator[OpenStore]:
    """Open stores on the same place, as several processes would; settings as keywords."""
    opened: list[ResultStore] = []

    def make(**settings: Any) -> ResultStore:
        store = open_result_store(url, settings=settings)
        assert store is not None
        store.connect()
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> ResultStore:
    return open_store()


@pytest.fixture
def forked() -> Forked:
    """Run things in forked children, all at once, and say whether each returned true there."""

    def run(*actions: Callable[[], bool]) -> list[bool]:
        children = [_fork(action) for action in actions]
        return [os.waitpid(pid, 0)[1] == 0 for pid in children]

    return run


def _fork(action: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if action() else 1
        finally:
            os._exit(code)
    return pid


@pytest.fixture
def make(moto_server: MotoServer) -> Iterator[OpenStore]:
    """Open stores by the part of the URL that follows the region; settings as keywords."""
    opened = []

    def open_(table: str, port: int = moto_server.port, **settings: Any) -> ResultStore:
        sign = "&" if "?" in table else "?"
        url = f"dynamodb://{LOGIN}@eu-west-1/{table}{sign}endpoint=http://127.0.0.1:{port}"
        store = open_result_store(url, settings=settings)
        assert store is not None
        opened.append(store)
        return store

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def behind(moto_server: MotoServer) -> Iterator[Any]:
    """botocore's own client."""
    client = moto_server.client_of("dynamodb", "eu-west-1")
    yield client
    client.close()


@pytest.fixture
def table(behind: Any) -> str:
    """A new table."""
    name = f"results-{uuid.uuid4()}"
    create_table(behind, name)
    return name


@pytest.fixture
def proxy(moto_server: MotoServer) -> Iterator[SqsProxy]:
    with SqsProxy(moto_server.port) as proxy:
        yield proxy
