"""For every test: the rules for reports (a skip fails in CI), a real Redis, and AWS's protocols by a moto server."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# First of all the installed one: in a checkout that is named qworker, pytest would import the checkout under this name.
import qworker  # noqa: F401

from support import RedisServer
from support.chaos_table import pytest_terminal_summary
from support.moto_server import MotoServer
from support.reports import pytest_make_collect_report, pytest_runtest_makereport

# Tools of the system that some users have not on their path: unshare's neighbours, chroot, ip.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport", "pytest_terminal_summary"]

# A machine that is busy with something else makes no example wrong.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    """What a transport has frozen for the rest of a worker's life (15 MB of botocore's) goes with its test."""
    yield
    if gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()


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


@pytest.fixture(scope="session")
def moto_server() -> Iterator[MotoServer]:
    """A server that speaks SQS, DynamoDB, S3 and STS, one for all tests of this process."""
    with MotoServer() as server:
        yield server


@pytest.fixture
def sqs(moto_server: MotoServer) -> MotoServer:
    """That server, without any queue."""
    moto_server.reset()
    return moto_server
