"""A Redis with an append-only file for each test, the accounting application on it, and dice with a printed seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support import RedisServer
from support.chaos import QUEUE, Office, new_seed, office_in, on_redis

# Without waiting for the disk at each write: nothing here cuts the power, and a slow disk would count as a slow worker.
APPENDING = ("--appendonly", "yes", "--appendfsync", "everysec")
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
LISTS = tuple(QUEUE + suffix for suffix in ("", "\x06\x163", "\x06\x166", "\x06\x169"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is chaos."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("chaos")


OpenOffice = Callable[..., Office]


@pytest.fixture
def seed() -> int:
    """What the dice of this test began with; shown when it fails."""
    seed = new_seed()
    print(f"seed: run this test again with QWORKER_CHAOS_SEED={seed}")  # noqa: T201
    return seed


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of this test alone."""
    with RedisServer(*APPENDING) as server:
        yield server


@pytest.fixture
def durable_server() -> Iterator[RedisServer]:
    """A server that has everything again after a restart."""
    with RedisServer(*DURABLE) as server:
        yield server


@pytest.fixture
def open_office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenOffice]:
    """Make the application on a server, the test's own unless told otherwise. `lease_s` is the workers' lease;

    `worker_broker` what they reach the server by, if not directly."""
    with ExitStack() as stack:

        def make(
            *, server: RedisServer | None = None, lease_s: float = 5.0, worker_broker: str = "", **setup: Any
        ) -> Office:
            used: RedisServer = server or request.getfixturevalue("server")
            url = used.url
            where = on_redis(used.client, *LISTS)
            options = {"lease_timeout": lease_s}
            setup = {"broker": url, "backend": url, "broker_transport_options": options, **setup}
            return stack.enter_context(office_in(tmp_path, where, worker_broker=worker_broker, **setup))

        yield make
