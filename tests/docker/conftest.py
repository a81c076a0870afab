"""An application on a real Redis, and containers that run it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support import Shop
from support.containers import Container, NoCgroup, limited, why_no_containers


@pytest.fixture(scope="session")
def no_containers(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """Why none can be made here."""
    return why_no_containers(tmp_path_factory.mktemp("try"))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def run(tmp_path: Path, stack: ExitStack, no_containers: str | None) -> Callable[..., Container]:
    """Start a container with these arguments; skips where none can be made."""
    if no_containers:
        pytest.skip(no_containers)

    def start(*command: str, **more: Any) -> Container:
        return stack.enter_context(Container(tmp_path, command, **more))

    return start


@pytest.fixture
def group(stack: ExitStack) -> Callable[..., list[Path]]:
    """Make a control group with these limits; skips where none can be made."""

    def make(**limits: Any) -> list[Path]:
        try:
            return stack.enter_context(limited(**limits))
        except NoCgroup as why:
            pytest.skip(f"needs a cgroup of its own: {why}")

    return make


@pytest.fixture
def shop(tmp_path: Path, stack: ExitStack, redis_url: str) -> Iterator[Shop]:
    """The application; its folder may be written to by the container's user, whoever that is."""
    folder = tmp_path / "app"
    folder.mkdir()
    folder.chmod(0o777)
    shop = Shop(folder, redis_url, redis_url, stack)
    yield shop
    shop.app.close()
    sys.modules.pop("shop", None)


@pytest.fixture
def worker(shop: Shop, run: Callable[..., Container]) -> Callable[..., Container]:
    """Start a worker of that application as a container does, from variables alone."""
    chosen = {"QWORKER_APP": "shop", "QWORKER_QUEUES": "hipri", "QWORKER_CONCURRENCY": "2"}

    def start(*command: str, env: dict[str, str] | None = None, **more: Any) -> Container:
        return partial(run, *command, binds={shop.folder: "/app"}, env=chosen | (env or {}))(**more)

    return start
