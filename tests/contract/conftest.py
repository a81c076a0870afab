"""Every broker in turn: in memory, SQLite, and each Redis version that this machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from qworker.transports import Transport

from support.brokers import Broker, InMemory, InRedis, InSqlite, InSqs, OpenTransport
from support.redis_server import RedisServer, all_redis, newest_redis, version_of
from support.sqs_limits import is_beyond_sqs

REDIS = {f"redis-{'.'.join(map(str, version_of(executable)[:2]))}": executable for executable in all_redis()}
KINDS = ["memory", "sqlite", "sqs", *(REDIS or ["redis"])]


@pytest.fixture(scope="session")
def older_servers() -> Iterator[dict[str, RedisServer]]:
    with ExitStack() as stack:
        older = [executable for executable in REDIS.values() if executable != newest_redis()]
        yield {executable: stack.enter_context(RedisServer(executable=executable)) for executable in older}


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    if request.param == "memory":
        return InMemory()
    if request.param == "sqlite":
        return InSqlite(tmp_path)
    if request.param == "sqs":
        return InSqs(request.getfixturevalue("moto_server"))
    executable = REDIS[request.param]
    if executable == newest_redis():
        return InRedis(request.getfixturevalue("redis_server"))
    return InRedis(request.getfixturevalue("older_servers")[executable])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what SQS cannot do; `sqs_limits` says what that is."""
    wanted = [item for item in items if not (_kind_of(item) == "sqs" and is_beyond_sqs(item))]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
    items[:] = wanted


def _kind_of(item: pytest.Item) -> object:
    return item.callspec.params.get("broker") if hasattr(item, "callspec") else None


@pytest.fixture
def open_on(broker: Broker) -> Iterator[OpenTransport]:
    """Open transports on the broker, as several workers and producers would."""
    opened: list[Transport] = []

    def connect(owner: str = "", *, lease_s: float = 30.0, **options: Any) -> Transport:
        transport = broker.transport(owner, lease_s, options)
        opened.append(transport)
        transport.connect()
        return transport

    yield connect
    for transport in opened:
        transport.close()


@pytest.fixture
def ours(open_on: OpenTransport) -> Transport:
    """The transport of one worker."""
    return open_on("ours/1")


@pytest.fixture
def theirs(open_on: OpenTransport) -> Transport:
    """The transport of another worker."""
    return open_on("theirs/1")


@pytest.fixture
def producer(open_on: OpenTransport) -> Transport:
    """The transport of a producer, which owns nothing."""
    return open_on()
