"""Silences: leases that ended because all workers, or the broker, stood still are nobody's death.

Not in memory: there, workers and broker are one process, which cannot be away from itself.
"""

from __future__ import annotations

import time

import pytest

from qworker.transports import Ack, Transport

from support.brokers import OpenTransport
from support.messages import envelopes
from support.redis_server import all_redis, version_of

_REDIS = [f"redis-{'.'.join(map(str, version_of(executable)[:2]))}" for executable in all_redis()]
pytestmark = pytest.mark.parametrize("broker", ["sqlite", *(_REDIS or ["redis"])], indirect=True)


#: Half of it is how long the machine may stand still between two lines.
_LEASE_S = 3.0


@pytest.mark.parametrize("first", [_LEASE_S, 30.0], ids=["a like one", "one with a long lease"])
def test_a_time_in_which_nobody_was_heard_of_is_nobody_s_death(
    first: float, producer: Transport, open_on: OpenTransport
) -> None:
    """All processes were paused, or the broker was; whoever comes first finds only leases that have ended."""
    owners = [open_on(f"living/{number}", lease_s=_LEASE_S) for number in range(2)]
    producer.publish(envelopes(2))
    taken = [owner.reserve(["hipri"], 1) for owner in owners]
    other = open_on("other/1", lease_s=first)
    time.sleep(_LEASE_S * 1.1)  # the pause itself
    assert other.maintain().recovered == 0
    for owner, deliveries in zip(owners, taken, strict=True):
        assert list(owner.extend(deliveries).lost) == []
        assert other.maintain().recovered == 0
        assert owner.ack([Ack(delivery) for delivery in deliveries]).done == 1


@pytest.mark.parametrize("silences", [1, 3])
def test_who_does_not_come_back_from_a_silence_is_dead_half_a_lease_later(
    silences: int, producer: Transport, open_on: OpenTransport
) -> None:
    """However many silences follow, as those of a worker with a long lease beside one with a short one."""
    doomed, ours = open_on("doomed/1", lease_s=0.4), open_on("ours/1", lease_s=30.0)
    producer.publish(envelopes(1))
    doomed.reserve(["hipri"], 1)
    time.sleep(0.6)
    assert ours.maintain().recovered == 0
    recovered = 0
    for _ in range(silences):
        time.sleep(0.25)
        recovered += ours.maintain().recovered
    assert recovered == 1
