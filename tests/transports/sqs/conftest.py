"""A worker's transports on SQS, over a proxy that counts and breaks requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy
from support.sqs_workers import OpenSqs, OpenWorker, opened_on


@pytest.fixture
def proxy(sqs: MotoServer) -> Iterator[SqsProxy]:
    with SqsProxy(sqs.port) as proxy:
        yield proxy


@pytest.fixture
def _openers(proxy: SqsProxy) -> Iterator[tuple[OpenWorker, OpenSqs]]:
    with opened_on(proxy.url) as openers:
        yield openers


@pytest.fixture
def open_worker(sqs: MotoServer, _openers: tuple[OpenWorker, OpenSqs]) -> OpenWorker:
    """A worker's transport that consumes `queues`, which are made."""

    def make(*queues: str, **options: Any) -> Any:
        for name in queues:
            sqs.queue(name)
        return _openers[0](*queues, **options)

    return make


@pytest.fixture
def open_sqs(sqs: MotoServer, _openers: tuple[OpenWorker, OpenSqs]) -> OpenSqs:
    """A worker's transport whose verbs wait for SQS; there is a queue `hipri`."""
    sqs.queue("hipri")
    return _openers[1]


@pytest.fixture
def travels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put into the outbox one by one, however slowly, waits for ten or a flush."""
    monkeypatch.setattr("qworker.transports.sqs_outbox.WINDOW_S", 600.0)


@pytest.fixture
def leaves_calmly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that is closed has as much time for its last words as it needs."""
    for name in ("_LAST_POLLS_S", "_LAST_WORDS_S", "_LAST_PAYLOADS_S"):
        monkeypatch.setattr(f"qworker.transports.sqs.{name}", 60.0)
