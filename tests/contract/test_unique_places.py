"""Hypothesis plays with unique messages: whatever happens, an id is taken exactly while one message with it lives."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from qworker.transports import Ack, Delivery, Envelope, Rejection, Transport, make_seal, task_id_in

from support.brokers import Broker
from support.messages import envelope

IDS = ["a", "b", "c"]
QUEUES = ["one", "two"]
some_id = st.sampled_from(IDS)
some_queue = st.sampled_from(QUEUES)


def unique(task_id: str, queue: str, due: float | None) -> Envelope:
    plain = envelope(0, queue)
    raw = re.sub(rb'"id": "[^"]*"', b'"id": "%s"' % task_id.encode(), plain.raw)
    raw = raw.replace(b'"retries": 0', b'"retries": 0, "unique": "%s"' % make_seal(task_id).encode())
    return replace(plain, raw=raw, due=due, task_id=task_id, unique=True)


class UniquePlaces(RuleBasedStateMachine):
    """A producer and a worker. A lock outlives the test, so only its message's end can free an id."""

    broker: Broker  # set by the test, one for each example

    @initialize()
    def start(self) -> None:
        self.producer: Transport = self.broker.transport("", 30.0, {})
        self.worker: Transport = self.broker.transport("w/1", 30.0, {})
        for transport in (self.producer, self.worker):
            transport.connect()
        self.held: list[Delivery] = []

    def teardown(self) -> None:
        if hasattr(self, "held"):
            self.producer.close()
            self.worker.close()

    def living(self, *places: str) -> Counter[str]:
        """How many messages of each id stand in `places`; by default wherever they count."""
        wanted = places or ("ready", "delayed", "inflight")
        return Counter(task_id_in(raw) for place, raw in self.broker.places() if place in wanted)

    @rule(task_id=some_id, queue=some_queue, due_in_s=st.sampled_from([None, None, -1.0, 0.005, 3600.0]))
    def publish(self, task_id: str, queue: str, due_in_s: float | None) -> None:
        was_alive = task_id in self.living()
        due = None if due_in_s is None else time.time() + due_in_s
        sent = unique(task_id, queue, due)
        assert self.producer.publish([sent]) == ([sent] if was_alive else [])

    @rule(limit=st.integers(1, 3))
    def reserve(self, limit: int) -> None:
        self.held += self.worker.reserve(QUEUES, limit)

    @rule(
        verb=st.sampled_from(["ack", "retry", "retry later", "requeue", "crash", "park", "reject", "twice"]),
        at=st.integers(0, 2),
    )
    def settle(self, verb: str, at: int) -> None:
        if not self.held:
            return
        delivery = self.held.pop(at % len(self.held))
        if verb == "reject":
            self.worker.reject([Rejection(delivery, "undecodable")])
        elif verb in ("requeue", "crash", "park"):
            due = time.time() + 3600 if verb == "park" else None
            self.worker.requeue([delivery], crashed=verb == "crash", due=due)
        else:
            due = time.time() + 3600 if verb == "retry later" else None
            again = [Envelope(delivery.queue, delivery.raw, due=due, task_id=task_id_in(delivery.raw))]
            acks = [Ack(delivery, again if verb.startswith("retry") else ())]
            assert self.worker.ack(acks).done == 1
            if verb == "twice":
                assert self.worker.ack(acks).done == 0

    @rule(ids=st.lists(some_id))
    def discard(self, ids: list[str]) -> None:
        delayed = self.living("delayed")
        gone = self.producer.discard_delayed(ids)
        # What is due in a moment may be moved in between.
        assert {task_id for task_id in ids if self.living("delayed")[task_id]} == set()
        assert set(gone) <= set(delayed)

    @rule(queue=some_queue)
    def purge(self, queue: str) -> None:
        self.producer.purge([queue])

    @rule(first=st.integers(0, 2), count=st.integers(1, 3))
    def raise_the_dead(self, first: int, count: int) -> None:
        alive = self.living()
        free = 0
        letters = self.producer.dead_letters()[first : first + count]
        for letter in letters:
            free += not alive[task_id_in(letter.raw)]
            alive[task_id_in(letter.raw)] += 1
        assert self.producer.requeue_dead([letter.token for letter in letters]) == free

    @rule()
    def maintain(self) -> None:
        self.worker.maintain()

    @invariant()
    def no_id_has_two_messages(self) -> None:
        if hasattr(self, "held"):
            assert all(count == 1 for count in self.living().values())


@pytest.mark.timeout(400)  # thousands of steps, each with a look at everything
def test_an_id_is_taken_exactly_while_its_message_lives(broker: Broker) -> None:
    class OnThisBroker(UniquePlaces):
        def __init__(self) -> None:
            super().__init__()
            self.broker = broker
            broker.clear()

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OnThisBroker,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
