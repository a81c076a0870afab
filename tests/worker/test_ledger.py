"""The ledger: each delivery is in one place and settled at most once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qworker.transports import Delivery
from qworker.worker.ledger import Entry, Ledger, State


def delivery(name: str) -> Delivery:
    return Delivery(name, "q", b"{}")


def test_entries_are_taken_in_the_order_in_which_they_came() -> None:
    ledger = Ledger()
    ledger.receive([delivery("a"), delivery("b")], 0.0)
    ledger.receive([delivery("c")], 0.0)
    assert [ledger.take().delivery.tag for _ in range(3)] == ["a", "b", "c"]


def test_what_is_put_back_goes_before_what_waits_and_keeps_its_order() -> None:
    ledger = Ledger()
    ledger.receive(map(delivery, "abcd"), 0.0)
    first, second = ledger.take(), ledger.take()
    ledger.put_back([second, first])
    assert [ledger.take().delivery.tag for _ in range(4)] == ["a", "b", "c", "d"]


def test_settling_twice_is_refused() -> None:
    ledger = Ledger()
    ledger.receive([delivery("a")], 0.0)
    entry = ledger.take()
    ledger.settle(entry)
    with pytest.raises(RuntimeError, match="settled twice"):
        ledger.settle(entry)


class LedgerMachine(RuleBasedStateMachine):
    """Random lives of deliveries, against a model of where each one is."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.received = 0
        self.sent: list[Entry] = []
        self.settling: list[Entry] = []
        self.forgotten = 0

    @rule(count=st.integers(1, 5))
    def receive(self, count: int) -> None:
        self.ledger.receive([delivery(str(self.received + i)) for i in range(count)], 0.0)
        self.received += count

    @precondition(lambda self: self.ledger.held)
    @rule(channel=st.integers(1, 3))
    def send(self, channel: int) -> None:
        entry = self.ledger.take()
        entry.state, entry.channel = State.SENT, channel
        self.sent.append(entry)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        back = data.draw(st.lists(st.sampled_from(self.sent), unique=True))
        self.ledger.put_back(back)
        self.sent = [e for e in self.sent if e not in back]

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.sent))
        self.ledger.settle(entry)
        self.sent.remove(entry)
        self.settling.append(entry)

    @precondition(lambda self: self.settling)
    @rule()
    def forget(self) -> None:
        self.ledger.forget(self.settling.pop())
        self.forgotten += 1

    @invariant()
    def every_delivery_is_in_exactly_one_place(self) -> None:
        places = self.ledger.held + len(self.sent) + len(self.settling) + self.forgotten
        assert places == self.received
        assert len(self.ledger) == self.received - self.forgotten
        by_channel = [e for channel in (1, 2, 3) for e in self.ledger.sent_to(channel)]
        assert sorted(e.seq for e in by_channel) == sorted(e.seq for e in self.sent)


LedgerMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
