"""The link to the broker: when it tries again, and what it says at the first connect."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from qworker.core.errors import TransportError
from qworker.testing import FakeClock, FlakyTransport, MemoryBroker, MemoryTransport
from qworker.transports import Delivery, Settled
from qworker.worker.ledger import Ledger
from qworker.worker.link import Link


class Risky(MemoryTransport):
    """Warns of something at every connect."""

    def warnings(self) -> list[str]:
        return ["it forgets what it is told; tell it twice"]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def transport(clock: FakeClock) -> FlakyTransport:
    return FlakyTransport(Risky(MemoryBroker(clock), owner="w/1"))


@pytest.fixture
def link(transport: FlakyTransport, clock: FakeClock) -> Link:
    return Link(
        transport,
        ["hipri"],
        Ledger(),
        clock,
        lease_s=30.0,
        max_attempts=None,
        rng=random.Random(7),
        horizon=lambda until: None,
    )


def connects_within(link: Link, clock: FakeClock, limit_s: float) -> float:
    """Turn the clock until the link is up; returns how long that took."""
    started = clock.monotonic()
    while not link.connect_if_due(clock.monotonic()):
        clock.advance(0.05)
        assert clock.monotonic() - started < limit_s, "the link stays down"
    return clock.monotonic() - started


def test_a_connection_that_has_worked_is_made_anew_at_once(link: Link, clock: FakeClock) -> None:
    for _ in range(5):
        connects_within(link, clock, 0.1)
        clock.advance(60)
        link.broke(TransportError("cut"))
    assert connects_within(link, clock, 1) < 0.1


def test_a_connection_that_breaks_at_once_is_made_anew_ever_later(link: Link, clock: FakeClock) -> None:
    """Otherwise a broker that accepts the worker and refuses its claims would be asked a thousand times a second."""
    waits = []
    for _ in range(9):
        waits.append(connects_within(link, clock, 10))
        link.broke(TransportError("the claim is refused"))
    assert waits[1] < 0.1
    assert waits[2] > 0.2
    assert sum(waits[-3:]) > 9


def test_what_the_broker_puts_at_risk_is_said_once(
    link: Link, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "qworker.worker"):
        connects_within(link, clock, 1)
        link.broke(TransportError("cut"))
        connects_within(link, clock, 1)
    assert caplog.text.count("it forgets what it is told; tell it twice") == 1


def test_a_broker_that_does_not_tell_its_settings_is_used_all_the_same(
    link: Link, clock: FakeClock, transport: FlakyTransport
) -> None:
    transport.fail_before("warnings")
    connects_within(link, clock, 1)
    assert link.is_up


class Timed(MemoryTransport):
    """A broker with a clock of its own."""

    def extend(self, deliveries: Sequence[Delivery]) -> Settled:
        return replace(super().extend(deliveries), now=self.boottime() + BASE)

    boottime: Callable[[], float]


BASE = 1.5e9


def test_the_brokers_time_of_day_is_learned_when_the_lease_is_renewed(clock: FakeClock) -> None:
    transport = Timed(MemoryBroker(clock), owner="w/1")
    transport.boottime = clock.boottime
    told: list[float] = []
    link = Link(
        transport,
        ["hipri"],
        Ledger(),
        clock,
        lease_s=30.0,
        max_attempts=None,
        rng=random.Random(7),
        horizon=lambda until: None,
        broker_base=told.append,
    )
    connects_within(link, clock, 0.1)
    clock.advance(60)
    link.tend(clock.monotonic())
    assert told == [BASE]  # once: what is known can still be right
