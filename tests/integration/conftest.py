"""An application of its own for each test, a broker of its own, and workers that never outlive their test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_client

from support import RedisServer, Shop, shops_in
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy


@pytest.fixture
def shop_on(tmp_path: Path) -> Iterator[Callable[[str, str], Shop]]:
    with shops_in(tmp_path) as make:
        yield make


@pytest.fixture
def shop(shop_on: Callable[[str, str], Shop], redis_server: RedisServer, redis_url: str) -> Shop:
    """The application on a real Redis, emptied before the test."""
    return shop_on(redis_url, redis_url)


@pytest.fixture
def sqlite_shop(shop_on: Callable[[str, str], Shop], tmp_path: Path) -> Shop:
    """The application on SQLite files of its own."""
    return shop_on(f"sqlite:///{tmp_path}/broker.db", f"sqlite:///{tmp_path}/results.db")


@pytest.fixture
def sqs_shop(shop_on: Callable[[str, str], Shop], sqs: MotoServer, tmp_path: Path) -> Shop:
    """The application on SQS with a queue `hipri`, its results in a SQLite file."""
    sqs.queue("hipri")
    return shop_on(sqs.url, f"sqlite:///{tmp_path}/results.db")


@pytest.fixture
def proxy(sqs: MotoServer) -> Iterator[SqsProxy]:
    """What workers on SQS can be sent over, to count and to break their requests."""
    with SqsProxy(sqs.port) as proxy:
        yield proxy


@pytest.fixture(params=["redis", "sqlite"])
def any_shop(request: pytest.FixtureRequest) -> Shop:
    """The application on each broker in turn."""
    shop: Shop = request.getfixturevalue("shop" if request.param == "redis" else "sqlite_shop")
    return shop


@pytest.fixture
def patient(tmp_path: Path) -> dict[str, str]:
    """The environment of a worker that leaves tasks all the time they need to end when they are cut.

    For tests of what they do in it: two seconds may pass on a busy machine before they do anything.
    """
    folder = tmp_path / "patience"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("from qworker.worker import lifecycle\nlifecycle.COLD_S = 60.0\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.fixture
def client(redis_url: str) -> Iterator[redis_client.Redis]:
    client = redis_client.Redis.from_url(redis_url)
    yield client
    client.close()
