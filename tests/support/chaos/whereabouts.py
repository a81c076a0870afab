"""Where every message is now, read behind the worker's back: ids by place, from one consistent look."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import redis

from qworker.transports.sqs_wire import decode_body

from ..moto_server import MotoServer

#: Task id → place: ready, delayed, inflight, or dead.
Whereabouts = Callable[[], dict[str, str]]


def on_sqlite(path: str) -> Whereabouts:
    """Of the messages in this file."""

    def look() -> dict[str, str]:
        with closing(sqlite3.connect(path, timeout=30)) as db:
            return {_id_of(raw): state for state, raw in db.execute("SELECT state, raw FROM qworker_messages")}

    return look


def on_redis(connect: Callable[[], redis.Redis], *lists: str) -> Whereabouts:
    """Of the messages on these lists, in flight under any worker (a Celery worker too), delayed and dead."""

    def look() -> dict[str, str]:
        with connect() as client, client.pipeline(transaction=True) as ask:
            for name in lists:
                ask.lrange(name, 0, -1)
            for name in ("unacked", "qworker:odd", "qworker:delayed:data", "qworker:dead:data"):
                ask.hgetall(name)
            *ready, unacked, odd, delayed, dead = ask.execute()
        return dict(_places(ready, unacked, odd, delayed, dead))

    return look


def on_sqs(server: MotoServer, queue: str, dead: str) -> Whereabouts:
    """Of the messages on these queues. Nobody can look into one: what is not settled goes by numbers instead of ids."""

    def look() -> dict[str, str]:
        counts = dict(zip(("ready", "inflight", "delayed"), server.counts(queue), strict=True))
        found = {f"{place} {number}": place for place, count in counts.items() for number in range(count)}
        if any(server.counts(dead)):
            letters = server.receive(dead, visible_s=1)
            found.update((_id_of(decode_body(letter["Body"])), "dead") for letter in letters)
        return found

    return look


def _places(ready: Any, unacked: Any, odd: Any, delayed: Any, dead: Any) -> Iterator[tuple[str, str]]:
    yield from ((_id_of(data.partition(b"\n")[2]), "dead") for data in dead.values())
    yield from ((_id_of(_delayed_envelope(data)), "delayed") for data in delayed.values())
    yield from ((_id_of(raw), "inflight") for raw in odd.values())
    yield from ((json.loads(entry)[0]["headers"]["id"], "inflight") for entry in unacked.values())
    yield from ((_id_of(raw), "ready") for raws in ready for raw in raws)


def _delayed_envelope(data: bytes) -> bytes:
    _, _, length, rest = data.split(b" ", 3)
    return rest[int(length) :]


def _id_of(raw: bytes | str) -> str:
    return str(json.loads(raw)["headers"]["id"])
