"""What an owner holds who does nothing any more goes back at once, over another connection, as nobody's fault."""

from __future__ import annotations

from qworker.transports import Ack, Transport
from qworker.worker.giving_back import give_back

from support.brokers import OpenTransport
from support.messages import envelopes, numbers_of


def test_everything_goes_back_to_the_front_in_its_order(
    producer: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    hung = open_on("hung/1")
    producer.publish(envelopes(4))
    hung.mark_started(hung.reserve(["hipri"], 3))
    ids = give_back(open_on("hung/1"))
    assert len(ids) == 3
    taken = ours.reserve(["hipri"], 9)
    assert numbers_of(taken) == [0, 1, 2, 3]
    assert [delivery.crashes for delivery in taken] == [0, 0, 0, 0]


def test_whatever_the_hung_connection_still_does_changes_nothing(
    producer: Transport, open_on: OpenTransport, ours: Transport
) -> None:
    hung = open_on("hung/1")
    producer.publish(envelopes(2))
    held = hung.reserve(["hipri"], 1)
    give_back(open_on("hung/1"))
    taken = ours.reserve(["hipri"], 9)
    assert hung.requeue(held).done == 0
    assert hung.ack([Ack(delivery) for delivery in held]).done == 0
    assert ours.ack([Ack(delivery) for delivery in taken]).done == 2


def test_an_owner_who_holds_nothing_gives_nothing_back(open_on: OpenTransport) -> None:
    open_on("hung/1")
    assert give_back(open_on("hung/1")) == []
