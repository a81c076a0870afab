"""Results in Redis, in Celery's keys and JSON: a Celery client reads ours, we read Celery's. See `open_result_store`.

Source of the layout: the result backend of Celery 5.7. Key `celery-task-meta-<id>` holds the meta; the same bytes are
PUBLISHed on the channel named like the key, which wakes clients that already wait (they do not poll).

One batch is one script call. Measured with 250-byte metas in batches of 200 on Redis 7.0: 0.5 µs here and 2.3 µs in
Redis per result; SETEX + PUBLISH in a pipeline costs 1.6 µs there, but two replies each to parse here and every meta
twice on the wire.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import hiredis

from ..core.errors import ResultStoreError
from ..transports import refusal
from .base import SettingsLike, StoredResult
from .expiry import expiry_from
from .meta import compress, decompress, is_ready, status_of
from .prefix import global_prefix
from .redis_link import Listener, RedisLink, endpoint_of

_PREFIX: Final = "celery-task-meta-"

# Most results in one script call: Redis serves nobody else meanwhile (about 1 ms).
_CHUNK: Final = 400

# How long a waiter trusts its subscription before it looks at the key itself: a connection can die without a sign.
_DISTRUST_S: Final = 5.0

# KEYS: first `sure` successes, then the others in their order. ARGV: ttl, ttl of failures (0 = for ever), sure, one
# letter for each of the others (F = failure), the metas. A success is written as it is. Anything else gives way to a
# stored success, which is nearly always seen from the first bytes. Returns the positions where only the client can
# tell (a stored value that is compressed); nothing was written there.
_STORE: Final = b"""
local call = redis.call
local ttl, failure_ttl, sure, kinds = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local unclear = {}

local function stored_status(key)
    local head = call('GETRANGE', key, 0, 20)
    if head == '' then return nil end
    local status = string.match(head, '^{"status": ?"(%u+)')
    if status then return status end
    if string.byte(head) == 0 then return 'COMPRESSED' end
    local fine, meta = pcall(cjson.decode, call('GET', key))
    return fine and type(meta) == 'table' and meta.status or nil
end

for i = 1, #KEYS do
    local key, meta = KEYS[i], ARGV[i + 4]
    local before = i > sure and stored_status(key)
    if before == 'COMPRESSED' then
        unclear[#unclear + 1] = i
    elseif before ~= 'SUCCESS' then
        local seconds = (i > sure and string.sub(kinds, i - sure, i - sure) == 'F') and failure_ttl or ttl
        if seconds > 0 then call('SETEX', key, seconds, meta) else call('SET', key, meta) end
        call('PUBLISH', key, meta)
    end
end
return unclear
"""
_STORE_SHA: Final = hashlib.sha1(_STORE, usedforsecurity=False).hexdigest()


class _Batch(NamedTuple):
    """Results in the order that the script wants: successes first; `kinds` describes the others."""

    results: list[StoredResult]
    sure: int
    kinds: str


class RedisResultStore:
    """A ResultStore on one Redis database. One thread at a time; after a fork the child gets connections of its own."""

    def __init__(self, url: str, settings: SettingsLike) -> None:
        endpoint = endpoint_of(url, settings)
        self._shown = endpoint.shown
        self._link = RedisLink(endpoint)
        self._listener = RedisLink(endpoint, Listener)
        self._prefix = (global_prefix(settings) + _PREFIX).encode()
        self._expiry = expiry_from(settings)
        self._compression = settings.get("result_compression")

    def prepare(self) -> None:
        """Nothing: a server that is away is waited for."""

    def connect(self) -> None:
        """Reach the server or raise."""
        self._listener.close()
        self._link.connect()

    def store(self, results: Sequence[StoredResult]) -> None:
        """Write all of them in one round trip; a stored SUCCESS stays unless a newer SUCCESS comes."""
        for unclear in self._write([self._batch(results[at : at + _CHUNK]) for at in range(0, len(results), _CHUNK)]):
            self._write_unless_success(unclear)

    def fetch(self, task_id: str) -> bytes | None:
        """The stored meta, or None."""
        (stored,) = self._checked(self._link.call(("GET", self._key(task_id))))
        return None if stored is None else decompress(stored)

    def wait(self, task_id: str, timeout_s: float | None) -> bytes | None:
        """The meta once its status is final, or None when the time is over. Told by PUBLISH, no polling."""
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        meta = self._fetch_ready(task_id)
        if meta is not None or time.monotonic() >= deadline:
            return meta
        channel = self._key(task_id)
        try:
            self._subscribe(channel)
            meta = self._listen(task_id, channel, deadline)
        except BaseException:
            self._listener.close()
            raise
        with suppress(ResultStoreError):
            self._listener.use(lambda listener: listener.unsubscribe(channel))
        return meta

    def forget(self, task_id: str) -> None:
        """Delete the stored meta."""
        self._checked(self._link.call(("DEL", self._key(task_id))))

    def close(self) -> None:
        """Drop the connections."""
        self._listener.close()
        self._link.close()

    def _key(self, task_id: str) -> bytes:
        # A task id may hold anything that JSON can say, even half a surrogate pair: it must not spoil its batch.
        return self._prefix + task_id.encode("utf-8", "backslashreplace")

    def _batch(self, results: Sequence[StoredResult]) -> _Batch:
        successes = [result for result in results if result.is_success]
        others = [result for result in results if not result.is_success]
        kinds = "".join("F" if status_of(result.meta) == "FAILURE" else "-" for result in others)
        return _Batch([*successes, *others], len(successes), kinds)

    def _write(self, batches: Sequence[_Batch]) -> list[StoredResult]:
        """Send the batches; return the results that the script could not decide about."""
        tails = [self._arguments(batch) for batch in batches]
        replies = self._link.call(*(("EVALSHA", _STORE_SHA, *tail) for tail in tails))
        if any(isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT") for reply in replies):
            replies = self._link.call(*(("EVAL", _STORE, *tail) for tail in tails))
        return [
            batch.results[position - 1]
            for batch, unclear in zip(batches, self._checked(replies), strict=True)
            for position in unclear
        ]

    def _arguments(self, batch: _Batch) -> tuple[str | int | bytes, ...]:
        keys = [self._key(result.task_id) for result in batch.results]
        metas = [compress(result.meta, self._compression) for result in batch.results]
        return (len(keys), *keys, self._expiry.s or 0, self._expiry.failure_s or 0, batch.sure, batch.kinds, *metas)

    def _write_unless_success(self, result: StoredResult) -> None:
        """Write over a compressed value, which no script can read; so it is not atomic (Celery's writing never is)."""
        stored = self.fetch(result.task_id)
        if stored is None or status_of(stored) != "SUCCESS":
            self.forget(result.task_id)
            self._write([self._batch([result])])

    def _fetch_ready(self, task_id: str) -> bytes | None:
        meta = self.fetch(task_id)
        return meta if meta is not None and is_ready(meta) else None

    def _subscribe(self, channel: bytes) -> None:
        try:
            self._listener.use(lambda listener: listener.subscribe(channel))
        except ResultStoreError:
            # The server may have closed a connection that was idle since the last wait.
            self._listener.use(lambda listener: listener.subscribe(channel))

    def _listen(self, task_id: str, channel: bytes, deadline: float) -> bytes | None:
        """Look at the key once more, now that nothing published can be missed; then wait for the channel."""
        while True:
            meta = self._fetch_ready(task_id)
            if meta is not None or time.monotonic() >= deadline:
                return meta
            look_again = min(deadline, time.monotonic() + _DISTRUST_S)
            while (reply := self._hear(look_again)) is not None:
                if reply[0] == b"message" and reply[1] == channel:
                    meta = decompress(reply[2])
                    if is_ready(meta):
                        return meta

    def _hear(self, deadline: float) -> Any:
        return self._listener.use(lambda listener: listener.receive(deadline))

    def _checked(self, replies: Sequence[Any]) -> Sequence[Any]:
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise ResultStoreError(f"the result store {refusal(reply, self._shown)}") from reply
        return replies
