"""The fakes themselves: time that a test moves, and outages on demand."""

from __future__ import annotations

import pytest

from qworker.core.errors import TransportError
from qworker.testing import FakeClock, FlakyTransport, MemoryBroker, MemoryTransport
from qworker.transports import Ack

from support.messages import envelope, envelopes, numbers_of


def test_time_stands_still_until_it_is_moved() -> None:
    clock = FakeClock()
    before = (clock.monotonic(), clock.time())
    assert (clock.monotonic(), clock.time()) == before
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (before[0] + 2.5, before[1] + 2.5)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_leases_and_delays_of_the_memory_broker_follow_its_clock() -> None:
    clock = FakeClock()
    broker = MemoryBroker(clock)
    ours, theirs = MemoryTransport(broker, owner="ours", lease_s=30), MemoryTransport(broker, owner="theirs")
    ours.connect()
    theirs.connect()
    theirs.publish([envelope(1), envelope(2, due=clock.time() + 60)])
    assert numbers_of(ours.reserve(["hipri"], 9)) == [1]
    clock.advance(29)
    assert theirs.maintain().recovered == 0
    clock.advance(2)
    assert theirs.maintain().recovered == 1
    assert theirs.maintain().next_due_s == 29
    clock.advance(29)
    assert theirs.maintain().moved == 1
    assert numbers_of(theirs.reserve(["hipri"], 9)) == [1, 2]


def flaky() -> FlakyTransport:
    inner = MemoryTransport(MemoryBroker(), owner="ours")
    inner.connect()
    return FlakyTransport(inner)


def test_a_call_that_fails_before_was_not_carried_out() -> None:
    transport = flaky()
    transport.fail_before("publish")
    with pytest.raises(TransportError):
        transport.publish(envelopes(1))
    assert transport.depths(["hipri"]) == {"hipri": 0}
    transport.publish(envelopes(1))
    assert transport.depths(["hipri"]) == {"hipri": 1}


def test_a_call_that_fails_after_was_carried_out() -> None:
    transport = flaky()
    transport.publish(envelopes(2))
    transport.fail_after("reserve")
    with pytest.raises(TransportError):
        transport.reserve(["hipri"], 1)
    (found,) = transport.recall(())
    assert transport.ack([Ack(found)]).done == 1
    assert transport.calls["reserve"] == 1


def test_an_outage_lasts_until_it_ends() -> None:
    transport = flaky()
    transport.go_down()
    for _ in range(3):
        with pytest.raises(TransportError):
            transport.connect()
    transport.come_back()
    transport.connect()
    assert transport.wake_fd() is not None
