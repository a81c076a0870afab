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
from qworker.transports import Envelope, Transport, open_transport

from .moto_server import MotoServer
from .redis_server import RedisServer
from .sqs_workers import PatientTransport
from .waiting import wait_until

Places = list[tuple[str, bytes]]
#: A machine that is busy with something else lets a server take its time.
PATIENCE_S = 30.0


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
        quick = {"synchronous": "OFF", "socket_timeout": PATIENCE_S, **options}
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
        return open_transport(self.url, options={"socket_timeout": PATIENCE_S, **options}, owner=owner, lease_s=lease_s)

    def places(self) -> Places:
        with self.server.client() as client:
            # Workers may be moving messages about: nothing is written while we look from one key to the next.
            client.execute_command("CLIENT", "PAUSE", 3000, "WRITE")
            try:
                return self._places(client)
            finally:
                client.execute_command("CLIENT", "UNPAUSE")

    def _places(self, client: Any) -> Places:
        content = _content(client)
        lists = (value for value in content.values() if isinstance(value, list))
        delayed, dead = content.get(b"qworker:delayed:data", {}), content.get(b"qworker:dead:data", {})
        assert content.get(b"qworker:delayed", {}).keys() == delayed.keys()
        assert content.get(b"qworker:dead", {}).keys() == dead.keys()
        return [
            *(("ready", raw) for raws in lists for raw in raws),
            *(("delayed", _delayed_envelope(data)) for data in delayed.values()),
            *(("inflight", raw) for raw in _in_flight(content)),
            *(("dead", data.partition(b"\n")[2]) for data in dead.values()),
        ]


#: How to read the whole of a key, by its type; a sorted set becomes a dict. Nothing here stands in plain strings.
_READING: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"list": lambda ask, key: ask.lrange(key, 0, -1),
    b"hash": lambda ask, key: ask.hgetall(key),
    b"set": lambda ask, key: ask.smembers(key),
    b"zset": lambda ask, key: ask.zrange(key, 0, -1, withscores=True),
}


def _content(client: Any) -> dict[bytes, Any]:
    """Every key with what it holds, in few round trips: on a busy machine each of them takes its time."""
    keys = client.keys("*")
    with client.pipeline(transaction=False) as ask:
        for key in keys:
            ask.type(key)
        kinds = {key: kind for key, kind in zip(keys, ask.execute(), strict=True) if kind in _READING}
        for key, kind in kinds.items():
            _READING[kind](ask, key)
        values = dict(zip(kinds, ask.execute(), strict=True))
    return {key: dict(value) if kinds[key] == b"zset" else value for key, value in values.items()}


def _in_flight(content: Mapping[bytes, Any]) -> list[bytes]:
    held = {key: tags for key, tags in content.items() if key.startswith(b"qworker:held:")}
    unacked, odd = content.get(b"unacked", {}), content.get(b"qworker:odd", {})
    tags = sorted(tag for some in held.values() for tag in some)
    assert tags == sorted([*unacked, *odd]), "each tag has one owner and one envelope"
    for key, started in content.items():
        if key.startswith(b"qworker:started:"):
            its_own = held[key.replace(b":started:", b":held:")]
            assert started <= its_own, "only what an owner holds is marked as started"
    assert content.get(b"unacked_index", {}).keys() == {*unacked, *odd}
    owners = content.get(b"qworker:leases", {}).keys()
    assert owners == content.get(b"qworker:sessions", {}).keys() == content.get(b"qworker:owners", set())
    assert {key.removeprefix(b"qworker:held:") for key in held} <= owners
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

    wait_until(recovered, f"{count} messages of a dead owner are given back")
    assert total == count


def publish_delayed(transport: Transport, make: Callable[[float], Sequence[Envelope]]) -> None:
    """Publish what `make` makes of a moment, all of it for then or a little later, before that moment comes.

    Where the machine was too slow for that, what it made is deleted, and made once more with more time.
    """
    lead_s = 0.5
    while True:
        due = time.time() + lead_s
        batch = make(due)
        assert transport.publish(batch) == []
        if time.time() < due:
            return
        _delete(transport, batch)
        lead_s *= 3


def _delete(transport: Transport, batch: Sequence[Envelope]) -> None:
    queues = sorted({envelope.queue for envelope in batch})
    total = 0

    def deleted() -> bool:
        nonlocal total
        transport.maintain()
        total += transport.purge(queues)
        return total == len(batch)

    wait_until(deleted, "what came too late is deleted")


def wait_for_due(transport: Transport, count: int) -> None:
    """Let `transport` move what is due until it has moved `count` messages."""
    total = 0

    def moved() -> bool:
        nonlocal total
        total += transport.maintain().moved
        return total >= count

    wait_until(moved, f"{count} delayed messages are moved")
    assert total == count


def wait_for_ready(transport: Transport, count: int, queue: str = "hipri") -> None:
    """Let `transport` move what is due until so many messages wait, however they came there."""

    def are_ready() -> bool:
        transport.maintain()
        return transport.depths([queue])[queue] == count

    wait_until(are_ready, f"{count} messages wait")


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
        given = {"create_missing_queues": True, "dead_letter_queue": "graveyard", **options}
        return PatientTransport(self.server.url, given, owner, lease_s)

    def places(self) -> Places:
        raise NotImplementedError("SQS shows nobody what waits")
