"""A real redis-server on a free loopback port, and both kinds of store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qworker.results import ResultStore, open_result_store

from support import RedisServer

OpenStore = Callable[..., ResultStore]
Forked = Callable[..., list[bool]]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for one test, which may do to it what it likes."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["redis", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/results.db"
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
