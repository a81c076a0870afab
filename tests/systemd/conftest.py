"""An application of its own for each test, and the socket on which its worker tells systemd how it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import RedisServer, Shop, shops_in
from support.notify_socket import NotifySocket


@pytest.fixture
def shop_on(tmp_path: Path) -> Iterator[Callable[[str], Shop]]:
    with shops_in(tmp_path) as make:
        yield lambda url: make(url, url)


@pytest.fixture
def shop(shop_on: Callable[[str], Shop], redis_server: RedisServer, redis_url: str) -> Shop:
    """The application on a real Redis, emptied before the test."""
    return shop_on(redis_url)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    """Where the worker's notifications arrive."""
    with NotifySocket(tmp_path) as heard:
        yield heard
