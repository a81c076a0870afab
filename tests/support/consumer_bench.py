"""A consumer on a broker in memory, with children that are only the far ends of their channels: no fork, no sleep."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Sequence

from qworker.core.errors import ResultStoreError
from qworker.pool import Channel, Pace, Say, SlotTable
from qworker.pool.wire import PACKET, RECORD, Work, pack_outcome, pack_record
from qworker.results import StoredResult
from qworker.tasks import Outcome
from qworker.testing import FakeClock, FlakyTransport, MemoryBroker, MemoryTransport
from qworker.transports import Envelope
from qworker.worker.consumer import Consumer
from qworker.worker.death import Death
from qworker.worker.ledger import Ledger
from qworker.worker.link import Link
from qworker.worker.mailbox import Mailbox
from qworker.worker.notices import Notice
from qworker.worker.settler import Settler


class FakeChild:
    """The child's ends of a channel: reads packets and says what the test wants."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        work, talk, _ = channel.child_ends()
        self.work = socket.socket(fileno=os.dup(work))
        self.talk = socket.socket(fileno=os.dup(talk))
        channel.forget_child_ends()

    def read(self) -> tuple[int, bytes] | None:
        """Start the next message: its number and bytes; None when nothing waits; EXIT is (0, b"")."""
        try:
            packet = self.work.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        kind, seq, _, queue = PACKET.unpack_from(packet)
        return (0, b"") if kind == Work.EXIT else (seq, packet[PACKET.size + queue :])

    def say(self, kind: Say, seq: int = 0) -> None:
        self.talk.sendall(pack_record(kind, seq))

    def done(self, seq: int, outcome: Outcome | None = None) -> None:
        self.talk.sendall(pack_outcome(seq, outcome or Outcome(task_id=str(seq))))

    def hears(self) -> int:
        """The kind of the next answer of the master."""
        _, kind, _ = RECORD.unpack(self.talk.recv(RECORD.size, socket.MSG_DONTWAIT))
        return int(kind)

    def die(self) -> None:
        self.work.close()
        self.talk.close()


def started(child: FakeChild) -> int:
    """Start the next message of `child`, which there has to be; its number."""
    read = child.read()
    assert read is not None, "the child has nothing to start"
    return read[0]


class Memory:
    """A result store that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.stored: list[StoredResult] = []
        self.is_down = False

    def connect(self) -> None: ...

    def store(self, results: Sequence[StoredResult]) -> None:
        if self.is_down:
            raise ResultStoreError("the test has taken the result store away")
        self.stored += results

    def fetch(self, task_id: str) -> bytes | None: ...

    def wait(self, task_id: str, timeout_s: float | None) -> bytes | None: ...

    def prepare(self) -> None: ...

    def forget(self, task_id: str) -> None: ...

    def close(self) -> None: ...


class Bench:
    """A consumer and everything around it, in the hands of a test."""

    def __init__(self, *, deaf_timeout_s: float = 30.0) -> None:
        self.clock = FakeClock()
        self.broker = MemoryBroker(self.clock)
        self.transport = FlakyTransport(MemoryTransport(self.broker, owner="me/1"))
        self.other = MemoryTransport(self.broker, owner="other/1")
        self.store = Memory()
        self.ledger = Ledger()
        self.mailbox = Mailbox()
        self.notices: list[Notice] = []
        self.horizons: list[float] = []
        self.table = SlotTable.create()
        self.settler = Settler(self.transport, self.store, self.ledger, self.clock)
        self.link = Link(
            self.transport,
            ["q"],
            self.ledger,
            self.clock,
            lease_s=30.0,
            max_attempts=3,
            rng=random.Random(1),
            horizon=self.horizons.append,
        )
        self.consumer = Consumer(
            self.link,
            self.ledger,
            self.settler,
            Pace(4),
            self.mailbox,
            self.clock,
            self.notices.append,
            self.table,
            deaf_timeout_s=deaf_timeout_s,
        )
        self.children: list[FakeChild] = []

    def child(self) -> FakeChild:
        """A child that is ready."""
        child = FakeChild(Channel(len(self.children), len(self.children) + 1))
        self.children.append(child)
        self.mailbox.post("child", channel=child.channel)
        self.turn()
        child.say(Say.READY)
        self.turn()
        return child

    def buried(self, child: FakeChild, death: Death) -> None:
        child.die()
        self.mailbox.post("died", serial=child.channel.serial, death=death)
        self.turn()

    def publish(self, *names: str) -> None:
        self.transport.publish([Envelope("q", message(name)) for name in names])

    def turn(self, times: int = 3) -> None:
        """Turn without waiting, every turn finds a letter to read; time for a flush passes."""
        for _ in range(times):
            self.clock.advance(0.006)
            self.mailbox.post("nothing")
            self.consumer.turn()

    def close(self) -> None:
        self.consumer.close()
        self.other.close()
        self.mailbox.close()
        self.table.close()
        for child in self.children:
            child.die()
            child.channel.close()

    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices]

    def waiting(self) -> int:
        return self.other.depths(["q"])["q"]


def message(name: str) -> bytes:
    return f'{{"body": "W10=", "headers": {{"task": "t", "id": "{name}"}}, "properties": {{}}}}'.encode()
