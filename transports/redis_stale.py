"""Gives back what vanished Celery workers held: kombu's entries in flight that are older than the visibility timeout.

Called by `maintain` of the Redis adapter when there are such entries; never touches those of qworkers, which have
leases. It goes by kombu's rules, under kombu's lock: an entry returns to the front of the list of its routing key and
priority, or of every queue that the bindings of its exchange lead to. Two things are different: the bytes of the
envelope stay as they are, and what leads nowhere, or cannot be read, goes to the dead-letter store and is not dropped.

Scores are times of the clocks of Celery workers. By a clock that is an hour behind, everything would be stale at once.
So an entry must also have stood there unchanged for the visibility timeout of the server's time, since lua/maintain.lua
first saw it.

Entries are read here and moved by lua/restore.lua, which moves only what is still as it was read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import hiredis

from ..core import log_events, logs
from .redis_names import Names
from .redis_scripts import RELEASE, RESTORE
from .redis_session import Session

logger = logging.getLogger("qworker.transports.redis")

UNROUTABLE: Final = "unroutable"
UNDECODABLE_ENTRY: Final = "undecodable_entry"

#: kombu's default for `visibility_timeout`.
VISIBILITY_S: Final = 3600.0
_EVERY_S: Final = 10.0
_PAGE: Final = 500
#: Read in one go, as far as the entries' sizes allow.
_PAGE_BYTES: Final = 16 * 1024 * 1024
#: A worker that dies in between holds Celery's up for no longer than this. The scripts would be safe without it.
_MUTEX_MS: Final = 5_000
#: Living Celery workers look every 100 s or so: what they may restore, they restore first.
_COURTESY_S: Final = 150.0
_DECODER: Final = json.JSONDecoder()
_SPACE: Final = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """What kombu's entry says: where in its bytes the envelope stands (from, to), and where it was delivered."""

    start: int
    end: int
    exchange: str
    routing_key: str
    priority: int


class StaleEntries:
    """One worker's share in looking for them. One thread, that of its transport."""

    def __init__(self, session: Session, names: Names, options: Mapping[str, Any], token: Callable[[], str]) -> None:
        self._session = session
        self._names = names
        self._token = token
        self._visibility_s: float = options.get("visibility_timeout", VISIBILITY_S)
        self._unacked = names.prefix + options.get("unacked_key", "unacked")
        self._index = names.prefix + options.get("unacked_index_key", "unacked_index")
        self._mutex = names.prefix + options.get("unacked_mutex_key", "unacked_mutex")
        self._foreign = f"{names.prefix}qworker:foreign"
        self._look_at = 0.0
        self._passed = 0  # so many stale entries, from the youngest, are not for us to move

    @property
    def visibility_ms(self) -> int:
        """How old an entry has to be."""
        return round(self._visibility_s * 1000)

    def restore(self) -> tuple[int, bool]:
        """Give back a page of them, about every 10 s; return how many, and whether to ask again at once.

        Raises TransportError; then kombu's lock is left to its end.
        """
        now = time.monotonic()
        if now < self._look_at:
            return 0, False
        self._look_at = now + _EVERY_S
        lock = secrets.token_hex(16)
        (is_locked,) = self._session.call(("SET", self._mutex, lock, "NX", "PX", _MUTEX_MS))
        if is_locked is None:
            return 0, False
        restored, more = self._restore_page()
        self._session.run(RELEASE, (self._mutex,), (lock,))
        if more:
            self._look_at = now
        return restored, more

    def _restore_page(self) -> tuple[int, bool]:
        """The youngest first: each goes to the front, so the oldest comes to stand at the very front."""
        page, now = self._page()
        read, entries = self._read([tag for tag, _ in page], self._long_known(page, now))
        foreign = [(tag, score, entries[tag]) for tag, score in page[:read] if tag in entries]
        restored, left = self._move(foreign) if foreign else (0, 0)
        more = read < len(page) or len(page) == _PAGE
        self._passed = self._passed + read - left if more else 0
        return restored, more

    def _page(self) -> tuple[list[tuple[bytes, bytes]], float]:
        """Tags and scores, and the server's time."""
        ((seconds, micros),) = self._session.call(("TIME",))
        now = int(seconds) + int(micros) / 1e6
        limits = (f"({now - self._visibility_s:.6f}", "-inf", "BYSCORE", "REV", "LIMIT", self._passed, _PAGE)
        (found,) = self._session.call(("ZRANGE", self._index, *limits, "WITHSCORES"))
        return list(zip(found[::2], found[1::2], strict=True)), now

    def _long_known(self, page: Sequence[tuple[bytes, bytes]], now: float) -> set[bytes]:
        """Those of the tags that have stood there unchanged for long enough. There are no notes on ours."""
        if not page:
            return set()
        (seen,) = self._session.call(("ZMSCORE", self._foreign, *(score + b" " + tag for tag, score in page)))
        latest_ms = (now - self._visibility_s - min(_COURTESY_S, self._visibility_s)) * 1000
        return {tag for (tag, _), at in zip(page, seen, strict=True) if at is not None and float(at) <= latest_ms}

    def _read(self, tags: Sequence[bytes], wanted: Collection[bytes]) -> tuple[int, dict[bytes, bytes | None]]:
        """How many of these tags were looked at, as many as sizes allow; and the entries of those that are wanted."""
        foreign = [tag for tag in tags if tag in wanted]
        if not foreign:
            return len(tags), {}
        sizes = dict(
            zip(foreign, self._session.call(*(("HSTRLEN", self._unacked, tag) for tag in foreign)), strict=True)
        )
        read, room = 0, _PAGE_BYTES
        for tag in tags:
            room -= sizes.get(tag, 0)
            if room < 0 and read:
                break
            read += 1
        shown = [tag for tag in tags[:read] if tag in sizes]
        if not shown:
            return read, {}
        (found,) = self._session.call(("HMGET", self._unacked, *shown))
        return read, dict(zip(shown, found, strict=True))

    def _move(self, entries: Sequence[tuple[bytes, bytes, bytes | None]]) -> tuple[int, int]:
        """How many came back, and how many tags have left the index."""
        bindings: dict[str, list[tuple[str, str, str]]] = {}
        arguments: list[str | int | bytes] = []
        for tag, score, entry in entries:
            digest = "" if entry is None else hashlib.sha1(entry, usedforsecurity=False).hexdigest()
            arguments += (tag, score, digest, *self._destination(entry or b"", bindings))
        restored, buried, left = self._session.run(RESTORE, (), arguments)
        if buried:
            logs.say(
                logger,
                logging.WARNING,
                log_events.FOREIGN_BURIED,
                "{count} messages of a vanished Celery worker lead to no queue, or cannot be read: they are kept "
                "in the dead-letter store",
                count=buried,
            )
        return int(restored), int(left)

    def _destination(self, raw: bytes, bindings: dict[str, list[tuple[str, str, str]]]) -> list[str | int | bytes]:
        """Envelope's first and last byte, token, how many lists, the lists; or, without any, a record and a list."""
        entry = read_entry(raw)
        if entry is None:
            return [1, len(raw), self._token(), 0, _record(UNDECODABLE_ENTRY, "", {}), ""]
        found: list[str | int | bytes] = [entry.start + 1, entry.end, self._token()]
        if lists := self._lists(entry, bindings):
            return [*found, len(lists), *lists]
        details = {"exchange": entry.exchange, "routing_key": entry.routing_key}
        back = self._names.list_of(entry.routing_key, entry.priority) if entry.routing_key else ""
        return [*found, 0, _record(UNROUTABLE, entry.routing_key, details), back]

    def _lists(self, entry: Entry, bindings: dict[str, list[tuple[str, str, str]]]) -> list[str]:
        if not entry.exchange:
            queues = {entry.routing_key}
        else:
            if entry.exchange not in bindings:
                bindings[entry.exchange] = self._bindings(entry.exchange)
            queues = {
                queue for key, pattern, queue in bindings[entry.exchange] if _leads(key, pattern, entry.routing_key)
            }
        return sorted(self._names.list_of(queue, entry.priority) for queue in queues if queue)

    def _bindings(self, exchange: str) -> list[tuple[str, str, str]]:
        """Routing key, pattern and queue of each binding; none when the key is no set."""
        (members,) = self._session.ask(("SMEMBERS", self._names.binding_keys(exchange)[0]))
        if isinstance(members, hiredis.ReplyError):
            return []
        rows = (member.decode(errors="replace").split(self._names.sep) for member in members)
        return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]


def read_entry(raw: bytes) -> Entry | None:
    """Read `[envelope, exchange, routing key]`; None when these bytes are no such thing."""
    # One character for each byte, so that positions in the text are positions in the bytes.
    text = raw.decode("latin-1")
    try:
        start = _after(text, 0, "[")
        envelope, end = _DECODER.raw_decode(text, start)
        exchange, routing_key = json.loads(b"[" + raw[_after(text, end, ",") :])
    except (ValueError, RecursionError, TypeError):
        return None
    exchange, routing_key = exchange or "", routing_key or ""
    if not isinstance(exchange, str) or not isinstance(routing_key, str):
        return None
    return Entry(start, end, exchange, routing_key, _priority(envelope))


def _after(text: str, at: int, expected: str) -> int:
    """Where the next value begins behind `expected`. Raises ValueError when that is not what comes next."""
    while text[at : at + 1] in _SPACE and at < len(text):
        at += 1
    if text[at : at + 1] != expected:
        raise ValueError(f"no {expected}")
    at += 1
    while text[at : at + 1] in _SPACE and at < len(text):
        at += 1
    return at


def _priority(envelope: Any) -> int:
    try:
        return max(0, min(9, int(envelope["properties"]["priority"])))
    except (TypeError, ValueError, KeyError, OverflowError):
        return 0


def _leads(key: str, pattern: str, routing_key: str) -> bool:
    """Whether a binding leads on: by its pattern (topic), or by the same key (direct). One of a fanout has neither."""
    if not pattern:
        return bool(key) and key == routing_key
    try:
        return re.match(pattern, routing_key) is not None
    except re.error:
        return False


def _record(reason: str, queue: str, details: Mapping[str, str]) -> str:
    return json.dumps({"queue": queue, "reason": reason, "crashes": 0, "details": details})
