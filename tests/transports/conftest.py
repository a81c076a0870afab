"""Transports on the shared Redis, closed after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from qworker.transports import Transport, open_transport

from support import RedisServer
from support.proxy import Proxy

Open = Callable[..., Any]


@pytest.fixture
def open_redis(redis_url: str) -> Iterator[Open]:
    """Open and connect a transport on the empty database; `url` may name another one, keywords are options."""
    opened: list[Transport] = []

    def connect(owner: str = "", *, url: str = redis_url, lease_s: float = 30.0, **options: Any) -> Transport:
        transport = open_transport(url, options=options, owner=owner, lease_s=lease_s)
        opened.append(transport)
        transport.connect()
        return transport

    yield connect
    for transport in opened:
        transport.close()


@pytest.fixture
def behind(redis_server: RedisServer, redis_url: str) -> Iterator[redis.Redis]:
    """A plain client, for looking and meddling behind the scenes."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server for one test, which may do to it what it likes."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """A proxy in front of the shared Redis."""
    with Proxy(redis_server.port) as proxy:
        yield proxy
