"""For every test: a skip is a failure in CI, because a test that nobody runs protects nobody; and a real Redis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from support import RedisServer

# Reasons for which a test may be skipped even in CI, each with what it would take to run it.
ALLOWED_SKIPS = (
    "needs unshare",  # PID and network namespaces: not allowed in most containers
    "needs root",
    "needs a user other than root",
)


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip whose reason is not listed into a failure when `CI` is set."""
    if not report.skipped or hasattr(report, "wasxfail") or not os.environ.get("CI"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI for a reason that is not listed in conftest.py: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[Any]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The newest redis-server of this machine, one for all tests of this process."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty database of that server."""
    with redis_server.client() as client:
        client.flushall()
        client.script_flush()
    return redis_server.url
