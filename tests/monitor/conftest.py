"""An application of its own for each test, its sockets in a folder of its own, and means to ask its workers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import RedisServer, Shop, shops_in
from support.moto_server import MotoServer


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where workers put their sockets: short, because a socket's path has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="qw-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def shop_on(tmp_path: Path, runtime_dir: Path) -> Iterator[Callable[[str], Shop]]:
    with shops_in(tmp_path) as make:
        yield lambda broker: make(broker, f"sqlite:///{tmp_path}/results.db")


@pytest.fixture
def shop(shop_on: Callable[[str], Shop], tmp_path: Path) -> Shop:
    """The application on a SQLite file."""
    return shop_on(f"sqlite:///{tmp_path}/broker.db")


@pytest.fixture
def redis_shop(shop_on: Callable[[str], Shop], redis_server: RedisServer, redis_url: str) -> Shop:
    """The application on a real Redis."""
    return shop_on(redis_url)


@pytest.fixture
def sqs_shop(shop_on: Callable[[str], Shop], sqs: MotoServer) -> Shop:
    """The application on SQS with a queue `hipri`."""
    sqs.queue("hipri")
    return shop_on(sqs.url)
