"""The Redis adapter: the Transport verbs as calls of scripts. Opened by `open_transport`.

Queue lists, priorities and bindings are kombu's; what is in flight stands in kombu's `unacked` hash and its index, so
that a Celery worker restores it after a rollback, and under its owner in keys of our own (ARCHITECTURE.md, "Redis
keys"). This file turns verbs into arguments and replies into data; every move happens in one script (lua/),
connections are redis_session.py's.

A tag is made here and in lua/claim.lua by the same rule, so that replies carry none. It is ours and not the message's
`delivery_tag`: a tag that a producer chose may be absent, used twice, or held by a Celery worker that received the
same message again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Any, Final

from ..core.clock import wall_time
from ..core.errors import ConfigError, TransportError
from .base import Ack, Capabilities, DeadLetter, Delivery, Envelope, Maintenance, Rejection, Settled
from .order import Order
from .published import published_at
from .redis_claim import ClaimPlan
from .redis_dead import DeadLetters, record_of
from .redis_health import warnings_of
from .redis_link import Command
from .redis_names import Names
from .redis_scripts import (
    ACK,
    CLAIM,
    DISCARD_DELAYED,
    EXTEND,
    MAINTAIN,
    MARK_STARTED,
    MARK_STOPPING,
    OLDEST,
    PUBLISH,
    PURGE,
    RECALL,
    REJECT,
    REQUEUE,
)
from .redis_session import Session
from .redis_stale import StaleEntries
from .redis_url import read_url
from .unique import id_bytes, task_id_in

_STEPS: Final = (0, 3, 6, 9)
_SEP: Final = "\x06\x16"
_POLL_S: Final = 0.5
#: Tags have thirteen digits from the first to the last, so that they sort by age as text.
_FIRST_NUMBER: Final = 10**12
#: How often a claim is repeated at once when it found nothing and something arrived before the wake-up was armed.
_ARM_TRIES: Final = 3
_RECALL_BATCH: Final = 50
_DISCARD_BATCH: Final = 500


class RedisTransport:
    """One Redis database as a broker. One thread at a time; after a fork the child gets connections of its own."""

    def __init__(self, url: str, options: Mapping[str, Any], *, owner: str = "", lease_s: float = 30.0) -> None:
        endpoint, found = read_url(url, options)
        if owner:
            endpoint = endpoint.with_patience(found.get("lease_timeout", lease_s) / 4)
        self.capabilities = Capabilities()
        self._owner = owner
        self._session = Session(endpoint, found, owner=owner, lease_s=found.get("lease_timeout", lease_s))
        self._names = Names(
            found.get("global_keyprefix", ""), found.get("sep", _SEP), found.get("priority_steps", _STEPS)
        )
        self._reserved = {found.get(f"{name}_key", name) for name in ("unacked", "unacked_index", "unacked_mutex")}
        self._order = Order(found)
        self._plans: dict[tuple[str, ...], ClaimPlan] = {}
        self._stale = StaleEntries(self._session, self._names, found, self._next_token)
        self._dead = DeadLetters(self._session, self._names)
        self._token = ""
        self._number = _FIRST_NUMBER
        self._declared: set[str] = set()

    def connect(self) -> None:
        """Open the connections anew. Raises TransportError, or ConfigError when the server refuses us for good."""
        self._session.connect()
        self._declared.clear()
        if self._owner and not self._session.can_wake:
            self.capabilities = replace(self.capabilities, idle_poll_s=_POLL_S)

    def publish(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Put envelopes on their lists in one write; by a script those with a due time, for the server's clock, and
        those with a lock.

        All of a worker's go by the script: it could tell nobody that a key takes no message, and would send the others
        again and again. Such a message is dead-lettered instead.
        """
        if not self._owner:
            self._refuse_reserved({envelope.queue for envelope in envelopes})
        by_script = [e for e in envelopes if self._owner or e.due is not None or e.unique]
        commands = self._declarations({envelope.queue for envelope in envelopes})
        commands += self._pushes([e for e in envelopes if not self._owner and e.due is None and not e.unique])
        if commands and self._owner:
            self._session.ask(*commands)  # a full server may refuse to note a name; the messages have to go out
        elif commands:
            self._session.call(*commands)
        self._declared.update(envelope.queue for envelope in envelopes)
        if not by_script:
            return []
        now = wall_time()
        # At the front the first envelope comes to be the next one.
        ordered = [e for e in by_script if not e.front] + [e for e in reversed(by_script) if e.front]
        fields = [field for envelope in ordered for field in self._fields(envelope, now)]
        try:
            refused = self._session.run(PUBLISH, (), fields)
        except TransportError as error:
            error.nothing_sent = error.nothing_sent and len(by_script) == len(envelopes)
            raise
        return [ordered[position - 1] for position in refused]

    def reserve(self, queues: Sequence[str], limit: int, *, arm: bool = False) -> list[Delivery]:
        """Take up to `limit` messages: fewer when they are large, because one call moves about 16 MiB."""
        if limit <= 0 or not queues:
            return []
        plan = self._plan(tuple(queues))
        deliveries: list[Delivery] = []
        for _ in range(_ARM_TRIES):
            deliveries, some_wait = self._claim(plan, min(limit, self.capabilities.max_batch), arm)
            if deliveries or not some_wait:
                break
        return deliveries

    def wake_fd(self) -> int | None:
        """The socket of the wake-up connection, or None when the server does not track keys."""
        return self._session.wake_fd()

    def drain_wake(self) -> None:
        """Read and forget what woke us. Raises TransportError when that connection has broken."""
        self._session.drain_wake()

    def extend(self, deliveries: Sequence[Delivery]) -> Settled:
        """Renew the lease, and the scores by which Celery workers see that these messages are not abandoned."""
        self._session.ready()
        tags = [delivery.tag for delivery in deliveries]
        arguments: list[str | int | bytes] = [self._session.token, self._session.lease_ms, *tags]
        lost, (seconds, micros) = self._session.run_with(EXTEND, (), arguments, ("TIME",))
        return replace(_settled(tags, lost), now=int(seconds) + int(micros) / 1e6)

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Put their tags into this owner's set of what runs."""
        if deliveries:
            self._session.run(MARK_STARTED, (), [delivery.tag for delivery in deliveries])

    def mark_stopping(self) -> None:
        """Delete that set, and note on the server that it stays deleted: a mark may be on its way still."""
        self._session.run(MARK_STOPPING, (), ())

    def ack(self, acks: Sequence[Ack]) -> Settled:
        """Settle for good; successors are published in the same script."""
        tags = [ack.delivery.tag for ack in acks]
        successors: list[str | int | bytes] = []
        now = wall_time()
        for position, ack in enumerate(acks, 1):
            for envelope in ack.successors:
                successors += (position, *self._fields(envelope, now))
        return _settled(tags, self._session.run(ACK, (), (len(tags), *tags, *successors)))

    def recall(self, known: Collection[str]) -> list[Delivery]:
        """What stands in this owner's name and is not in `known`, oldest first."""
        key = f"{self._names.prefix}qworker:held:{self._owner}"
        (members,) = self._session.call(("SMEMBERS", key))
        unknown = iter(sorted({member.decode() for member in members} - set(known)))
        found: list[Delivery] = []
        while tags := list(islice(unknown, _RECALL_BATCH)):
            envelopes = self._session.run(RECALL, (), tags)
            found += [self._recalled(tag, raw) for tag, raw in zip(tags, envelopes, strict=True) if raw is not None]
        return found

    def requeue(self, deliveries: Sequence[Delivery], *, crashed: bool = False, due: float | None = None) -> Settled:
        """Give back to the front of their lists, or with `due` to the back, when it is time."""
        tags = [delivery.tag for delivery in deliveries]
        task_ids = [b"" if due is None else id_bytes(task_id_in(delivery.raw)) for delivery in deliveries]
        pairs = [field for pair in zip(tags, task_ids, strict=True) for field in pair]
        return _settled(tags, self._session.run(REQUEUE, (), (int(crashed), _wait_ms(due, wall_time()), *pairs)))

    def reject(self, rejections: Sequence[Rejection]) -> Settled:
        """Move to the dead-letter store, with the reason and the original bytes."""
        tags = [rejection.delivery.tag for rejection in rejections]
        records = [record_of(rejection) for rejection in rejections]
        fields = [field for pair in zip(tags, records, strict=True) for field in pair]
        return _settled(tags, self._session.run(REJECT, (), fields))

    def maintain(self) -> Maintenance:
        """Move due messages, recover what the dead held, Celery workers too; see that the wake-up connection lives."""
        self._session.check_wake()
        arguments = (self._session.lease_ms, self._stale.visibility_ms)
        moved, recovered, wait_ms, more, stale, look_ms = self._session.run(MAINTAIN, (), arguments)
        if stale:
            restored, more_stale = self._stale.restore()
            recovered, more = recovered + restored, more or more_stale
        return Maintenance(moved, recovered, _seconds(wait_ms), bool(more), _seconds(look_ms))

    def discard_delayed(self, task_ids: Sequence[str]) -> list[str]:
        """Look them up by token, in bounded batches."""
        keys = [id_bytes(task_id) for task_id in task_ids]
        found: list[bytes] = []
        for at in range(0, len(keys), _DISCARD_BATCH):
            found += self._session.run(DISCARD_DELAYED, (), keys[at : at + _DISCARD_BATCH])
        return [key.decode("utf-8", "surrogatepass") for key in found]

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """Lengths of the lists, summed over priorities."""
        names = list(dict.fromkeys(queues))
        if not names:
            return {}
        lengths = iter(self._session.call(*(("LLEN", key) for name in names for key in self._names.keys_of(name))))
        return {name: sum(islice(lengths, len(self._names.steps))) for name in names}

    def oldest(self, queues: Sequence[str]) -> dict[str, float]:
        """Look at the next message of each list: a script, so that a large one stays on the server."""
        names = list(dict.fromkeys(queues))
        tags = iter(self._session.run(OLDEST, [key for name in names for key in self._names.keys_of(name)], ()))
        found = {name: [published_at(tag.decode()) for tag in islice(tags, len(self._names.steps))] for name in names}
        return {name: min(filter(None, ages)) for name, ages in found.items() if any(ages)}

    def purge(self, queues: Sequence[str]) -> int:
        """Delete the lists."""
        keys = [key for queue in dict.fromkeys(queues) for key in self._names.keys_of(queue)]
        total, more = 0, bool(keys)
        while more:
            count, more = self._session.run(PURGE, keys, ())
            total += count
        return total

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, newest first."""
        return self._dead.newest(limit)

    def requeue_dead(self, tokens: Sequence[str]) -> int:
        """Put dead letters back at the end of their lists."""
        return self._dead.requeue(tokens)

    def purge_dead(self, tokens: Sequence[str]) -> int:
        """Delete dead letters."""
        return self._dead.purge(tokens)

    def warnings(self) -> list[str]:
        """Eviction and missing persistence, as far as the server lets us see its settings."""
        return warnings_of(self._session.ask, self._session.shown)

    def close(self) -> None:
        """Leave. What is still held stays until the lease ends."""
        try:
            self._session.leave()
        except TransportError:
            pass
        self._session.drop()

    # ---- publishing ----

    def _refuse_reserved(self, queues: Collection[str]) -> None:
        """A list in the place of such a key would stop every worker; lua/common.lua has the same rule."""
        for queue in queues:
            if queue in self._reserved or queue.startswith(("qworker:", "_kombu.")):
                raise ConfigError(f"{queue!r} is a key of the transport itself and cannot be a queue's name")

    def _declarations(self, queues: Collection[str]) -> list[Command]:
        """Register queues in both of kombu's binding sets, once per connection."""
        return [
            ("SADD", key, self._names.binding(queue))
            for queue in sorted(set(queues) - self._declared)
            for key in self._names.binding_keys(queue)
        ]

    def _pushes(self, envelopes: Sequence[Envelope]) -> list[Command]:
        """One LPUSH (back) or RPUSH (front) for each list. At the front the first envelope comes to be the next one."""

        def place(envelope: Envelope) -> tuple[bool, str]:
            return envelope.front, self._names.list_of(envelope.queue, envelope.priority)

        commands: list[Command] = []
        for (front, name), group in groupby(sorted(envelopes, key=place), key=place):
            raws = [envelope.raw for envelope in group]
            key = self._names.prefix + name
            commands.append(("RPUSH", key, *reversed(raws)) if front else ("LPUSH", key, *raws))
        return commands

    def _fields(self, envelope: Envelope, now: float) -> tuple[str | int | bytes, ...]:
        """Token, wait in ms ('' = none), list, side, envelope, task id, whether it must get its lock: as the scripts
        want a message to publish."""
        name = self._names.list_of(envelope.queue, envelope.priority)
        side = "F" if envelope.front else "B"
        wait_ms = _wait_ms(envelope.due, now)
        task_id, unique = id_bytes(envelope.task_id), int(envelope.unique)
        return self._next_token(), wait_ms, name, side, envelope.raw, task_id, unique

    def _next_token(self) -> str:
        self._session.ready()
        return f"{self._session.token}-{self._numbers(1) + 1}"

    def _numbers(self, count: int) -> int:
        """Set `count` numbers of this session aside; return the one before the first."""
        if self._token != self._session.token:
            self._token, self._number = self._session.token, _FIRST_NUMBER
        before = self._number
        self._number += count
        return before

    # ---- reserving ----

    def _plan(self, queues: tuple[str, ...]) -> ClaimPlan:
        plan = self._plans.get(queues)
        if plan is None:
            self._plans.clear()  # a worker consumes one set of queues at a time
            plan = self._plans[queues] = ClaimPlan(self._names, queues, self._order)
        return plan

    def _claim(self, plan: ClaimPlan, limit: int, arm: bool) -> tuple[list[Delivery], bool]:
        """One claim; with `arm` also whether something waits on the lists now."""
        session = self._session
        session.ready()
        before = self._numbers(limit)
        args = (session.token, session.lease_ms, limit, before, *plan.layout(limit))
        if not arm or session.wake_fd() is None:
            return plan.deliveries(session.run(CLAIM, plan.keys, args), session.token, before), False
        # The server remembers the keys that the command after CACHING YES reads, and tells when one of them changes.
        # They are read after the claim: a claim that takes something would otherwise wake ourselves.
        watch: tuple[Command, Command] = (("CLIENT", "CACHING", "YES"), ("EXISTS", *plan.keys))
        reply, _, waiting = session.run_with(CLAIM, plan.keys, args, *watch)
        return plan.deliveries(reply, session.token, before), waiting > 0

    def _recalled(self, tag: str, raw: bytes) -> Delivery:
        _, crashes, _, name = tag.split(":", 3)
        return Delivery(tag, self._names.queue_of(name), raw, int(crashes))


def _settled(tags: Sequence[str], lost: Sequence[bytes]) -> Settled:
    return Settled(len(tags) - len(lost), [tag.decode() for tag in lost])


def _seconds(ms: int) -> float | None:
    return ms / 1000 if ms >= 0 else None


def _wait_ms(due: float | None, now: float) -> str | int:
    """How long until `due` by this host's clock, which need not agree with the server's. Never too short."""
    return "" if due is None else math.ceil((due - now) * 1000)
