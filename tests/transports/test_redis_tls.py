"""`rediss://`: verified by default, own authorities, client certificates, and a wake-up that works through TLS."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker.core.errors import TransportError
from qworker.transports import Ack, Envelope

from support import RedisServer
from support.messages import envelopes, numbers_of
from support.tls_front import FOLDER, TlsFront

Open = Callable[..., Any]
CA = f"ssl_ca_certs={FOLDER / 'ca.pem'}"


@pytest.fixture
def front(redis_server: RedisServer) -> Iterator[TlsFront]:
    with TlsFront(redis_server.port) as front:
        yield front


def test_a_server_of_a_trusted_authority_is_used(front: TlsFront, open_redis: Open) -> None:
    ours = open_redis("w/1", url=f"rediss://localhost:{front.port}/0?{CA}")
    assert ours.reserve(["hipri"], 9, arm=True) == []
    ours.publish(envelopes(3))
    assert select.select([ours.wake_fd()], [], [], 5)[0]
    ours.drain_wake()
    taken = ours.reserve(["hipri"], 9)
    assert numbers_of(taken) == [0, 1, 2]
    assert ours.ack([Ack(delivery) for delivery in taken]).done == 3


def test_large_messages_pass_through_tls(front: TlsFront, open_redis: Open) -> None:
    ours = open_redis("w/1", url=f"rediss://localhost:{front.port}/0?{CA}")
    raw = b"x" * 3_000_000
    ours.publish([Envelope("hipri", raw)])
    assert ours.reserve(["hipri"], 1)[0].raw == raw


def test_an_unknown_authority_is_refused(front: TlsFront, open_redis: Open) -> None:
    with pytest.raises(TransportError, match=r"(?i)certificate"):
        open_redis(url=f"rediss://localhost:{front.port}/0")


def test_another_host_s_certificate_is_refused(front: TlsFront, open_redis: Open) -> None:
    with pytest.raises(TransportError, match=r"(?i)certificate"):
        open_redis(url=f"rediss://127.0.0.1:{front.port}/0?{CA}")
    open_redis(url=f"rediss://127.0.0.1:{front.port}/0?{CA}&ssl_check_hostname=false")


def test_verification_can_be_switched_off(front: TlsFront, open_redis: Open) -> None:
    open_redis(url=f"rediss://127.0.0.1:{front.port}/0?ssl_cert_reqs=none")


def test_a_client_certificate_is_shown(redis_server: RedisServer, open_redis: Open) -> None:
    with TlsFront(redis_server.port, wants_client_certificate=True) as front:
        url = f"rediss://localhost:{front.port}/0?{CA}"
        with pytest.raises(TransportError):
            open_redis(url=url)
        open_redis(url=f"{url}&ssl_certfile={FOLDER / 'client.pem'}&ssl_keyfile={FOLDER / 'client.key'}")
