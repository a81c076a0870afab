"""The same handle on every broker: open transports on it, and look behind the scenes where each message is."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from qworker.testing import MemoryBroker, MemoryTransport
from qworker.transports import Ack, Delivery, Rejection, Settled, Transport, open_transport
from qworker.transports.sqs import SqsTransport

from .moto_server import MotoServer
from .redis_server import RedisServer
from .waiting import wait_until

Places = list[tuple[str, bytes]]
#: A fixture that opens transports on SQS, with options.
OpenSqs = Callable[..., "PatientTransport"]


class Broker(Protocol):
    """One broker, empty at first. `places` lists (ready | delayed | inflight | dead, envelope) for every message."""

    def transport(self, owner: str, lease_s: float, options: Mapping[str, Any]) -> Transport: ...

    def places(self) -> Places: ...

    def clear(self) -> None: ...


class InMemory:
    """A MemoryBroker on the real clock."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._broker = MemoryBroker()

    def transport(self, owner: str, lease_s: float, options: Mapping[str, Any]) -> Transport:
        return MemoryTransport(self._broker, owner=owner, lease_s=lease_s, **options)

    def places(self) -> Places:
        broker = self._broker
        return [
            *(("ready", message.envelope.raw) for messages in broker.ready.values() for message in messages),
            *(("delayed", message.envelope.raw) for message in broker.delayed),
            *(("inflight", flight.message.envelope.raw) for flight in broker.in_flight.values()),
            *(("dead", letter.raw) for letter in broker.dead),
        ]


class InSqlite:
    """A file. Its `synchronous` is OFF: no test cuts the power."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "broker.db"

    def clear(self) -> None:
        for file in self.path.parent.glob("broker.db*"):
            file.unlink()

    def transport(self, owner: str, lease_s: float, options: Mapping[str, Any]) -> Transport:
        quick = {"synchronous": "OFF", **options}
        return open_transport(f"sqlite:///{self.path}", options=quick, owner=owner, lease_s=lease_s)

    def places(self) -> Places:
        with closing(sqlite3.connect(self.path)) as db:
            return list(db.execute("SELECT state, raw FROM qworker_messages"))


class InRedis:
    """A database of a real server. `places` also checks that kombu's keys and our own tell the same story."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.url = server.url
        self.clear()

    def clear(self) -> None:
        with self.server.client() as client:
            client.flushall()

    def transport(self, owner: str, lease_s: float, options: Mapping[str, Any]) -> Transport:
        return open_transport(self.url, options=options, owner=owner, lease_s=lease_s)

    def places(self) -> Places:
        with self.server.client() as client:
            # Workers may be moving messages about: nothing is written while we look from one key to the next.
            client.execute_command("CLIENT", "PAUSE", 3000, "WRITE")
            try:
                return self._places(client)
            finally:
                client.execute_command("CLIENT", "UNPAUSE")

    def _places(self, client: Any) -> Places:
        keys = set(client.keys("*"))
        lists = [key for key in keys if client.type(key) == b"list"]
        ready = [raw for key in lists for raw in client.lrange(key, 0, -1)]
        delayed = client.hgetall("qworker:delayed:data")
        dead = client.hgetall("qworker:dead:data")
        assert set(client.zrange("qworker:delayed", 0, -1)) == set(delayed)
        assert set(client.zrange("qworker:dead", 0, -1)) == set(dead)
        return [
            *(("ready", raw) for raw in ready),
            *(("delayed", _delayed_envelope(data)) for data in delayed.values()),
            *(("inflight", raw) for raw in self._in_flight(client, keys)),
            *(("dead", data.partition(b"\n")[2]) for data in dead.values()),
        ]

    def _in_flight(self, client: Any, keys: set[bytes]) -> list[bytes]:
        held_keys = [key for key in keys if key.startswith(b"qworker:held:")]
        tags = [tag for key in held_keys for tag in client.smembers(key)]
        unacked, odd = client.hgetall("unacked"), client.hgetall("qworker:odd")
        assert sorted(tags) == sorted([*unacked, *odd]), "each tag has one owner and one envelope"
        for key in (key for key in keys if key.startswith(b"qworker:started:")):
            held = client.smembers(key.replace(b":started:", b":held:"))
            assert client.smembers(key) <= held, "only what an owner holds is marked as started"
        assert set(client.zrange("unacked_index", 0, -1)) == {*unacked, *odd}
        owners = set(client.zrange("qworker:leases", 0, -1))
        assert owners == set(client.hkeys("qworker:sessions")) == client.smembers("qworker:owners")
        assert {key.removeprefix(b"qworker:held:") for key in held_keys} <= owners
        return [*(entry[1 : entry.rindex(b', "", ')] for entry in unacked.values()), *odd.values()]


def _delayed_envelope(data: bytes) -> bytes:
    _, _, length, rest = data.split(b" ", 3)
    return rest[int(length) :]


class OpenTransport(Protocol):
    """Open and connect a transport on the test's broker; it is closed after the test."""

    def __call__(self, owner: str = "", *, lease_s: float = 30.0, **options: Any) -> Transport: ...


def wait_for_recovery(transport: Transport, count: int) -> None:
    """Let `transport` look for dead owners until it has given back `count` messages."""
    total = 0

    def recovered() -> bool:
        nonlocal total
        total += transport.maintain().recovered
        return total >= count

    wait_until(recovered, f"{count} messages of a dead owner are given back", 10.0)
    assert total == count


def wait_for_due(transport: Transport, count: int) -> None:
    """Let `transport` move what is due until it has moved `count` messages."""
    total = 0

    def moved() -> bool:
        nonlocal total
        total += transport.maintain().moved
        return total >= count

    wait_until(moved, f"{count} delayed messages are moved", 10.0)
    assert total == count


def soon(seconds: float = 0.5) -> float:
    """A due time that a test can wait for."""
    return time.time() + seconds


def decoded(record: bytes) -> Any:
    """JSON."""
    return json.loads(record)


OpenBroker = Callable[[], Broker]


class InSqs:
    """A moto server. What waits there cannot be looked at, so there are no `places`."""

    def __init__(self, server: MotoServer) -> None:
        self.server = server
        self.clear()

    def clear(self) -> None:
        self.server.reset()

    def transport(self, owner: str, lease_s: float, options: Mapping[str, Any]) -> Transport:
        quick = {
            "wait_time_seconds": 0,
            "polling_interval": 0.02,
            "create_missing_queues": True,
            "dead_letter_queue": "graveyard",
        }
        return PatientTransport(self.server.url, {**quick, **options}, owner, lease_s)

    def places(self) -> Places:
        raise NotImplementedError("SQS shows nobody what waits")


class PatientTransport(SqsTransport):
    """Verbs that return when SQS has done what was asked for, so that a test can look at once."""

    def __init__(self, url: str, options: Mapping[str, Any], owner: str, lease_s: float) -> None:
        super().__init__(url, options, owner=owner, lease_s=lease_s)

    def reserve(self, queues: Sequence[str], limit: int, *, arm: bool = False) -> list[Delivery]:
        got: list[Delivery] = []
        since = time.monotonic()
        while len(got) < limit:
            more = super().reserve(queues, limit - len(got), arm=arm)
            got += more
            if more:
                since = time.monotonic()
            elif self._is_empty(queues, since):
                break
            time.sleep(0.002)
        if got or not arm:
            self.stop_fetching()
            # One under way that finds nothing would tell the next call that nothing is there.
            wait_until(lambda: not any(lane.polls for lane in self._polls._lanes.values()), "no poll is under way")
            self._outbox.flush(10)
        return got

    def _is_empty(self, queues: Sequence[str], since: float) -> bool:
        """Whether nothing is there: of polls side by side one may have found what another one missed."""
        with self._polls._cond:
            if any(lane.asked or lane.buffer for lane in self._polls._lanes.values()):
                return False
            return all(self._polls.has_heard(name, time.monotonic() - since) for name in queues)

    def ack(self, acks: Sequence[Ack]) -> Settled:
        return self._done(super().ack(acks))

    def requeue(self, deliveries: Sequence[Delivery], *, crashed: bool = False, due: float | None = None) -> Settled:
        return self._done(super().requeue(deliveries, crashed=crashed, due=due))

    def reject(self, rejections: Sequence[Rejection]) -> Settled:
        return self._done(super().reject(rejections))

    def _done(self, settled: Settled) -> Settled:
        assert self._outbox.flush(10), "SQS has done what it was told"
        return settled
