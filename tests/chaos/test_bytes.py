"""The connection to Redis ends at every byte of an exchange: whatever was half said, nothing is lost, nothing twice.

The walk through all bytes is done by a transport used as a worker uses it, because a worker takes its time after
connections that broke at once; workers themselves are cut at some bytes.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import pytest

from qworker import chain
from qworker.core.errors import TransportError
from qworker.transports import Ack, Delivery, Rejection, Transport, open_transport

from support import RedisServer, wait_until
from support.brokers import InRedis
from support.chaos import (
    IS_LONG,
    QUEUE,
    TO_CLIENT,
    TO_SERVER,
    Cutter,
    Fleet,
    Office,
    Task,
    Verdict,
    demand_none,
    row,
    scaled,
)
from support.messages import envelope, envelopes, number_of

Record = Callable[[str, object], None]

#: More bytes than any exchange has.
FAR = 1_000_000
DIRECTIONS = pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])


@DIRECTIONS
@pytest.mark.timeout(scaled(300, 900))
def test_a_connection_that_ends_at_any_byte_leaves_every_message_in_its_one_place(
    direction: str, server: RedisServer, rng: random.Random, seed: int, record_property: Record
) -> None:
    broker = InRedis(server)
    with Cutter(server.port) as cutter:
        walk(broker, cutter, direction, FAR)  # loads the scripts, so that later ones are called by their names
        length = min(walk(broker, cutter, direction, FAR) for _ in range(3))
        offsets = range(length) if IS_LONG else sorted(rng.sample(range(length), 120))
        cuts = 0
        for after in offsets:
            walk(broker, cutter, direction, after, resets=bool(rng.getrandbits(1)))
            cuts += not cutter.is_armed
        # An exchange has other numbers each time, and every ten seconds a look for what others have left behind: one
        # that is shorter than those that were measured ends before the last offsets.
        assert cuts >= 0.95 * len(offsets)
    row(
        record_property, f"connection cut at a byte, {direction}", f"{6 * len(offsets)} messages, 1 transport",
        {"cut": cuts}, Verdict(), seed=seed,
    )  # fmt: skip


def walk(broker: InRedis, cutter: Cutter, direction: str, after: int, *, resets: bool = False) -> int:
    """Use every verb of a worker once, with a cut after so many bytes; check the places; return the bytes passed."""
    broker.clear()
    with closing(open_transport(broker.url)) as producer:
        producer.publish(envelopes(4, "q"))
    cutter.arm(direction, after, resets=resets)
    with closing(open_transport(cutter.url, owner="w/1")) as transport:
        Walk(transport).run()
        passed = after - cutter.left  # without the farewell: it carries a whole script
    found = sorted((place, number_of(raw)) for place, raw in broker.places())
    expected = [("dead", 2), ("delayed", 3), ("delayed", 11), ("ready", 1), ("ready", 10)]
    assert found == expected, f"cut after {after} bytes {direction}"
    return passed


class Walk:
    """A worker's part: after an error it connects, renews, recalls, and says again what it could not say."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._held: dict[str, Delivery] = {}
        self._seen: Counter[int] = Counter()
        self._is_up = False

    def run(self) -> None:
        self._do(lambda: None)
        for _ in range(2):
            self._do(self._reserve)
        assert self._seen == dict.fromkeys(range(4), 1), "each message was received once"
        a, b, c, d = sorted(self._held.values(), key=lambda held: number_of(held.raw))
        successors = [envelope(10, "q"), envelope(11, "q", due=4e9)]
        self._do(lambda: self._transport.mark_started([a, b]))
        self._do(lambda: self._transport.ack([Ack(a, successors)]))
        self._do(lambda: self._transport.requeue([b], crashed=True))
        self._do(lambda: self._transport.reject([Rejection(c, "unknown_task")]))
        self._do(lambda: self._transport.requeue([d], due=4e9))
        self._do(self._transport.maintain)

    def _do(self, action: Callable[[], object]) -> None:
        """Until it has not failed."""
        while True:
            try:
                self._connect()
                action()
                return
            except TransportError:
                self._is_up = False

    def _connect(self) -> None:
        if not self._is_up:
            self._transport.connect()
            self._transport.extend(list(self._held.values()))
            self._receive(self._transport.recall(self._held))
            self._is_up = True

    def _reserve(self) -> None:
        self._receive(self._transport.reserve(["q"], 2, arm=True) if len(self._held) < 4 else [])

    def _receive(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._held[delivery.tag] = delivery
            self._seen[number_of(delivery.raw)] += 1


@DIRECTIONS
@pytest.mark.timeout(scaled(300, 900))
def test_a_worker_whose_connections_end_at_any_byte_loses_and_repeats_nothing(
    direction: str,
    server: RedisServer,
    open_office: Callable[..., Office],
    rng: random.Random,
    seed: int,
    record_property: Record,
) -> None:
    tasks: list[Task] = []
    cuts = 0
    with Cutter(server.port) as cutter:
        office = open_office(worker_broker=cutter.url, lease_s=5.0)
        with Fleet(office.folder, 1, "-c", "2", "-Q", QUEUE, "-l", "CRITICAL") as fleet:
            fleet.wait_ready()
            exchange(office, tasks)
            length = length_of(cutter, direction, office, tasks)
            # No two exchanges are equally long, and a byte that this one lacks cuts nothing: others follow.
            for number, after in enumerate(rng.sample(range(length), scaled(20, 240))):
                if number >= scaled(5, 60) and cuts > scaled(2, 40):
                    break
                cutter.arm(direction, after, resets=bool(rng.getrandbits(1)))
                exchange(office, tasks)
                cuts += not cutter.is_armed
                cutter.disarm()
            fleet.stop()
    verdict = office.judge(tasks, ())
    row(
        record_property, f"a worker's connections cut, {direction}", f"{len(tasks)} tasks, 1 worker × 2", {"cut": cuts},
        verdict, seed=seed,
    )  # fmt: skip
    demand_none(verdict.complaints, fleet.complaints)
    assert verdict.vanished == 0
    assert cuts > scaled(2, 40)


def exchange(office: Office, tasks: list[Task]) -> None:
    """Have a few messages claimed, run, their results stored, followed and acked."""
    plain, once = (office.task(name).delay(0.0) for name in ("work", "once"))
    retried = office.task("work").delay(0.0, 1)
    links = [uuid.uuid4().hex for _ in range(2)]
    chain(*(office.task("work").si(0.0).set(task_id=one) for one in links)).apply_async()
    tasks += [
        Task(plain.id), Task(once.id, at_most_once=True), Task(retried.id, attempts=2),
        Task(links[0]), Task(links[1], after=links[0]),
    ]  # fmt: skip
    wait_until(lambda: not office.left(), "everything is settled", 40.0)


def length_of(cutter: Cutter, direction: str, office: Office, tasks: list[Task]) -> int:
    """How many bytes go that way in one exchange."""
    cutter.arm(direction, FAR)
    exchange(office, tasks)
    return FAR - cutter.left
