"""A worker's transport on SQS, over a proxy that counts and breaks requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.brokers import OpenSqs, PatientTransport
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy

#: Nothing waits longer than a test; a poll that finds nothing comes back at once.
QUICK = {"wait_time_seconds": 0, "polling_interval": 0.02}


@pytest.fixture
def proxy(sqs: MotoServer) -> Iterator[SqsProxy]:
    with SqsProxy(sqs.port) as proxy:
        yield proxy


@pytest.fixture
def open_sqs(sqs: MotoServer, proxy: SqsProxy) -> Iterator[OpenSqs]:
    """A worker's transport, over the proxy."""
    opened = []
    sqs.queue("hipri")

    def make(owner: str = "w/1", lease_s: float = 30.0, **options: Any) -> PatientTransport:
        transport = PatientTransport(proxy.url, {**QUICK, **options}, owner, lease_s)
        transport.connect()
        opened.append(transport)
        return transport

    yield make
    for transport in opened:
        transport.close()
