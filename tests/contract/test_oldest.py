"""When the oldest message of a queue was published: told by what qworker's producers write, where a broker can look."""

from __future__ import annotations

from qworker.tasks.encoding import encode_task
from qworker.transports import Envelope, Transport

from support.brokers import Broker, InSqs
from support.messages import envelope


def published(moment: float, priority: int = 0) -> Envelope:
    raw = encode_task("shop.add", [1], task_id="x", queue="hipri", priority=priority, published=moment)
    return Envelope("hipri", raw, priority)


def test_the_oldest_message_of_all_priorities_tells_its_age(
    broker: Broker, producer: Transport, ours: Transport
) -> None:
    producer.publish([published(1_800_000_000.5), published(1_800_000_007.0), published(1_799_999_999.25, priority=9)])
    oldest = ours.oldest(["hipri", "empty"])
    assert oldest == ({} if isinstance(broker, InSqs) else {"hipri": 1_799_999_999.25})


def test_a_message_of_another_producer_tells_nothing(producer: Transport, ours: Transport) -> None:
    producer.publish([envelope(1)])
    assert ours.oldest(["hipri"]) == {}
