"""Whatever happens in whatever order: every message is in exactly one place, and settled at most once."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from qworker.transports import Ack, Delivery, Envelope, Rejection, Transport

from support.brokers import Broker
from support.messages import STRANGE, raw_message

QUEUES = ["a", "b"]
OWNERS = ["ours/1", "theirs/1"]
LEASE_S = 0.03

some_owner = st.sampled_from(OWNERS)
some_queue = st.sampled_from(QUEUES)
some_priority = st.sampled_from([0, 3, 9])


class Places(RuleBasedStateMachine):
    """Two owners and a producer do everything that the contract allows, late and repeated calls included.

    `alive` counts the envelopes that must be somewhere; `receipts` are all deliveries ever made, of which `open` are
    not settled as far as their owner knows. What is drawn does not depend on what was found: leases end by the real
    clock, so an example does not always take the same course.
    """

    broker: Broker  # set by the test, one for each example

    @initialize()
    def start(self) -> None:
        self.transports: dict[str, Transport] = {}
        for owner in ["", *OWNERS]:
            self.transports[owner] = self.broker.transport(owner, LEASE_S, {})
            self.transports[owner].connect()
        self.producer = self.transports[""]
        self.alive: Counter[bytes] = Counter()
        self.receipts: list[tuple[str, Delivery]] = []
        self.open: dict[str, Delivery] = {}
        self.number = 0

    def teardown(self) -> None:
        for transport in getattr(self, "transports", {}).values():
            transport.close()

    def fresh(self, queue: str, priority: int, due_in_s: float | None, strange: str | None) -> Envelope:
        self.number += 1
        raw = raw_message(self.number, queue) if strange is None else STRANGE[strange]
        due = None if due_in_s is None else time.time() + due_in_s
        return Envelope(queue, raw, priority, due, front=self.number % 5 == 0)

    @rule(
        queue=some_queue,
        priority=some_priority,
        due_in_s=st.sampled_from([None, None, -1.0, 0.01, 3600.0]),
        strange=st.sampled_from([None, None, None, *STRANGE]),
        copies=st.integers(1, 3),
    )
    def publish(self, queue: str, priority: int, due_in_s: float | None, strange: str | None, copies: int) -> None:
        envelope = self.fresh(queue, priority, due_in_s, strange)
        self.producer.publish([envelope] * copies)
        self.alive[envelope.raw] += copies

    @rule(owner=some_owner, limit=st.integers(1, 4), arm=st.booleans())
    def reserve(self, owner: str, limit: int, arm: bool) -> None:
        for delivery in self.transports[owner].reserve(QUEUES, limit, arm=arm):
            assert delivery.tag not in self.open, "a tag is used twice"
            self.receipts.append((owner, delivery))
            self.open[delivery.tag] = delivery

    @rule(
        verb=st.sampled_from(["ack", "ack", "requeue", "crash", "delay", "reject"]),
        back=st.integers(1, 12),
        stranger=st.sampled_from([None, None, None, *OWNERS]),
        has_successor=st.booleans(),
    )
    def settle(self, verb: str, back: int, stranger: str | None, has_successor: bool) -> None:
        """Any receipt, also one that was settled or lost long ago, by its owner or by the other one."""
        if not self.receipts:
            return
        owner, delivery = self.receipts[-min(back, len(self.receipts))]
        caller = stranger or owner
        successors = [self.fresh("a", 0, None, None)] if verb == "ack" and has_successor else []
        settled = self.call(self.transports[caller], verb, delivery, successors)
        if settled.done:
            assert caller == owner
            assert self.open.pop(delivery.tag, None) is not None, "one receipt is settled twice"
            if verb == "ack":
                self.alive[delivery.raw] -= 1
                self.alive.update(successor.raw for successor in successors)
        else:
            assert list(settled.lost) == [delivery.tag]

    def call(self, transport: Transport, verb: str, delivery: Delivery, successors: list[Envelope]) -> Any:
        if verb == "ack":
            return transport.ack([Ack(delivery, successors)])
        if verb == "reject":
            return transport.reject([Rejection(delivery, "undecodable", {"by": "test"})])
        due = time.time() + 0.01 if verb == "delay" else None
        return transport.requeue([delivery], crashed=verb == "crash", due=due)

    @rule(owner=some_owner)
    def extend(self, owner: str) -> None:
        mine = [delivery for whose, delivery in self.receipts if whose == owner and delivery.tag in self.open]
        for tag in self.transports[owner].extend(mine).lost:
            del self.open[tag]

    @rule(owner=some_owner)
    def maintain(self, owner: str) -> None:
        self.transports[owner].maintain()

    @rule(survivor=some_owner)
    def let_leases_end(self, survivor: str) -> None:
        """One owner goes on renewing: silence of all of them would be taken for an outage of the broker."""
        end = time.monotonic() + LEASE_S * 1.2
        while time.monotonic() < end:
            self.extend(survivor)
            time.sleep(LEASE_S / 10)

    @rule(owner=some_owner)
    def reconnect(self, owner: str) -> None:
        self.transports[owner].connect()

    @rule(owner=some_owner)
    def recall(self, owner: str) -> None:
        """What the broker holds in an owner's name are receipts of that owner, with their bytes."""
        known = {delivery.tag: delivery for whose, delivery in self.receipts if whose == owner}
        for delivery in self.transports[owner].recall(()):
            assert delivery.raw == known[delivery.tag].raw
            assert delivery.tag in self.open

    @rule(queue=some_queue)
    def purge(self, queue: str) -> None:
        before = self.places()
        count = self.producer.purge([queue])
        gone = before - self.places()
        assert sum(gone.values()) == count
        assert all(place == "ready" for place, _ in gone)
        self.alive.subtract(raw for (_, raw), times in gone.items() for _ in range(times))

    @rule(verb=st.sampled_from(["requeue", "purge"]), first=st.integers(0, 3), count=st.integers(0, 3))
    def raise_the_dead(self, verb: str, first: int, count: int) -> None:
        letters = self.producer.dead_letters()[first : first + count]
        tokens = [letter.token for letter in letters]
        act = self.producer.requeue_dead if verb == "requeue" else self.producer.purge_dead
        assert act([*tokens, "stranger", *tokens]) == len(letters)
        if verb == "purge":
            self.alive.subtract(letter.raw for letter in letters)

    @invariant()
    def every_message_is_in_exactly_one_place(self) -> None:
        if not hasattr(self, "alive"):
            return
        found: Counter[bytes] = Counter()
        for (_, raw), times in self.places().items():
            found[raw] += times
        assert found == +self.alive

    def places(self) -> Counter[tuple[str, bytes]]:
        return Counter(self.broker.places())


@pytest.mark.timeout(400)  # thousands of steps, each with a look at everything
def test_every_message_is_in_exactly_one_place(broker: Broker) -> None:
    explore(broker, max_examples=12)


@pytest.mark.long
def test_every_message_is_in_exactly_one_place_after_many_tries(broker: Broker) -> None:
    explore(broker, max_examples=250)


def explore(broker: Broker, max_examples: int) -> None:
    class OnThisBroker(Places):
        def __init__(self) -> None:
            super().__init__()
            self.broker = broker
            broker.clear()

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OnThisBroker,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
