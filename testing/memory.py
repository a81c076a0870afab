"""A broker in memory: the Transport contract without a server, with a clock that the test may move.

It passes the same suite as the real adapters (tests/contract). Nothing survives the process, and nothing is shared
between processes; transports of one MemoryBroker see the same messages, from any thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from ..core.clock import Clock, SystemClock
from ..transports import (
    Ack,
    Capabilities,
    DeadLetter,
    Delivery,
    Envelope,
    Maintenance,
    Order,
    Place,
    Rejection,
    Settled,
    carry_out,
    published_in,
    seal_of,
    task_id_in,
)

_BATCH: Final = 500
_BATCH_BYTES: Final = 16 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Message:
    envelope: Envelope
    crashes: int = 0
    due: float = 0.0
    front: bool = False  # where it goes when due


@dataclass(slots=True)
class _InFlight:
    message: _Message
    owner: str
    started: bool = False


class MemoryBroker:
    """What a server would keep. The lock makes each verb one step; use it through MemoryTransport."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.lock = threading.RLock()
        self.ready: dict[tuple[str, int], list[_Message]] = {}
        self.delayed: list[_Message] = []
        self.in_flight: dict[str, _InFlight] = {}
        self.dead: list[DeadLetter] = []
        self.buried: dict[str, _Message] = {}  # the messages of the dead letters, by token
        self.leases: dict[str, float] = {}
        self.locks: dict[str, tuple[str, float]] = {}  # of unique messages: nonce and end
        self.armed: list[Callable[[str | None], None]] = []
        self._tags = 0

    def next_tag(self) -> str:
        """A tag that was never used before. Tags of one broker sort by age."""
        self._tags += 1
        return f"m{self._tags:012}"

    def put(self, messages: Sequence[_Message], *, front: bool) -> None:
        """Make messages ready: at the back in this order, or at the front so that the first one is the next."""
        for message in reversed(messages) if front else messages:
            waiting = self.ready.setdefault((message.envelope.queue, message.envelope.priority), [])
            waiting.insert(0 if front else len(waiting), message)
            self.tell(message.envelope.queue)

    def delay(self, message: _Message, due: float) -> None:
        """Keep a message until its time has come."""
        message.due = due
        self.delayed.append(message)
        self.delayed.sort(key=lambda m: m.due)
        if self.delayed[0] is message:
            self.tell(None)

    def publish(self, envelopes: Iterable[Envelope]) -> list[Envelope]:
        """Put or delay new messages; return those that did not get their lock."""
        back: list[_Message] = []
        front: list[_Message] = []
        refused: list[Envelope] = []
        for envelope in envelopes:
            if envelope.unique and not self.take_lock(envelope.raw, envelope.due):
                refused.append(envelope)
            elif envelope.due is not None and envelope.due > self.clock.time():
                self.delay(_Message(envelope, front=envelope.front), envelope.due)
            else:
                (front if envelope.front else back).append(_Message(envelope))
        self.put(back, front=False)
        self.put(front, front=True)
        return refused

    def take_lock(self, raw: bytes, due: float | None = None) -> bool:
        """Take the lock that a message bears, if it bears one; False when another message has it."""
        seal, now = seal_of(raw), self.clock.time()
        if seal is None:
            return True
        if seal.lock in self.locks and self.locks[seal.lock][1] > now:
            return False
        self.locks[seal.lock] = (seal.nonce, max(now, due or 0.0) + seal.lasts_s)
        return True

    def release_lock(self, raw: bytes, successors: Iterable[Envelope] = ()) -> None:
        """A message has ended: so does its lock, unless a successor goes on bearing it."""
        seal = seal_of(raw)
        if seal is None or self.locks.get(seal.lock, ("", 0.0))[0] != seal.nonce:
            return
        del self.locks[seal.lock]
        for envelope in successors:
            if not envelope.unique and seal_of(envelope.raw) == seal:
                self.take_lock(envelope.raw, envelope.due)

    def move_due(self) -> int:
        """Make ready what is due, a batch of it."""
        now = self.clock.time()
        due = [message for message in self.delayed if message.due <= now][:_BATCH]
        self.delayed = [message for message in self.delayed if message not in due]
        for message in due:
            self.put([message], front=message.front)
        return len(due)

    def tell(self, queue: str | None) -> None:
        """Wake whoever waits for `queue`, or for a change of due times (None)."""
        for wake in list(self.armed):
            wake(queue)


class MemoryTransport:
    """One owner's or producer's view of a MemoryBroker. `options`: `queue_order_strategy` and its like."""

    def __init__(self, broker: MemoryBroker, *, owner: str = "", lease_s: float = 30.0, **options: Any) -> None:
        self.capabilities = Capabilities()
        self._broker = broker
        self._owner = owner
        self._lease_s = lease_s
        self._pipe: tuple[int, int] | None = None
        self._queues: frozenset[str] = frozenset()
        self._order = Order(options)
        self._is_stopping = False

    def connect(self) -> None:
        """Begin the lease and open the wake-up pipe."""
        self._hang_up()
        if not self._owner:
            return
        with self._broker.lock:
            self._renew()
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
            self._broker.armed.append(self._wake)

    def publish(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Put or delay."""
        with self._broker.lock:
            return self._broker.publish(envelopes)

    def reserve(self, queues: Sequence[str], limit: int, *, arm: bool = False) -> list[Delivery]:
        """Take up to `limit` messages, in the order of the real adapters."""
        with self._broker.lock:
            self._broker.move_due()
            wanted = list(dict.fromkeys(queues))
            taken = [self._take(message) for message in self._next(wanted, limit)]
            if taken:
                self._renew()
            self._queues = frozenset(wanted) if arm and not taken else frozenset()
            return taken

    def wake_fd(self) -> int | None:
        """The reading end of the pipe."""
        return self._pipe[0] if self._pipe else None

    def drain_wake(self) -> None:
        """Empty the pipe."""
        with suppress(BlockingIOError):
            while self._pipe and os.read(self._pipe[0], 4096):
                pass

    def extend(self, deliveries: Sequence[Delivery]) -> Settled:
        """Renew the lease."""
        with self._broker.lock:
            self._renew()
            lost = [d.tag for d in deliveries if self._held(d.tag) is None]
            return Settled(len(deliveries) - len(lost), lost)

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Note what runs."""
        with self._broker.lock:
            for delivery in deliveries:
                if self._held(delivery.tag) is not None:
                    self._broker.in_flight[delivery.tag].started = not self._is_stopping

    def mark_stopping(self) -> None:
        """Clear the marks."""
        with self._broker.lock:
            self._is_stopping = True
            for flight in self._broker.in_flight.values():
                flight.started = flight.started and flight.owner != self._owner

    def ack(self, acks: Sequence[Ack]) -> Settled:
        """Forget, and publish the successors."""

        def settle(message: _Message, ack: Ack) -> None:
            self._broker.release_lock(message.envelope.raw, ack.successors)
            self._broker.publish(ack.successors)

        return self._settle([(ack.delivery.tag, ack) for ack in acks], settle)

    def recall(self, known: Collection[str]) -> list[Delivery]:
        """What stands in this owner's name and is not in `known`, oldest first."""
        with self._broker.lock:
            mine = [(tag, f.message) for tag, f in sorted(self._broker.in_flight.items()) if f.owner == self._owner]
            return [_delivery(tag, message) for tag, message in mine if tag not in known]

    def requeue(self, deliveries: Sequence[Delivery], *, crashed: bool = False, due: float | None = None) -> Settled:
        """Give back to the front, or with `due` to the back, when it is time."""
        back: list[_Message] = []

        def settle(message: _Message, _: None) -> None:
            message.crashes += crashed
            if due is not None and due > self._broker.clock.time():
                message.front = False
                message.envelope = replace(message.envelope, task_id=task_id_in(message.envelope.raw))
                self._broker.delay(message, due)
            else:
                back.append(message)

        with self._broker.lock:
            settled = self._settle([(delivery.tag, None) for delivery in deliveries], settle)
            self._broker.put(back, front=due is None)
            return settled

    def reject(self, rejections: Sequence[Rejection]) -> Settled:
        """Move to the dead letters."""

        def settle(message: _Message, rejection: Rejection) -> None:
            letter = self._letter(rejection)
            self._broker.dead.append(letter)
            self._broker.buried[letter.token] = message
            self._broker.release_lock(message.envelope.raw)

        return self._settle([(rejection.delivery.tag, rejection) for rejection in rejections], settle)

    def maintain(self) -> Maintenance:
        """Move due messages, and give back what owners hold whose lease has ended."""
        broker = self._broker
        with broker.lock:
            moved, recovered = broker.move_due(), self._recover()
            due = broker.delayed[0].due if broker.delayed else None
            next_due_s = None if due is None else max(0.0, due - broker.clock.time())
            return Maintenance(moved, recovered, next_due_s, _BATCH in (moved, recovered), self._look_again_s())

    def discard_delayed(self, task_ids: Sequence[str]) -> list[str]:
        """Delete the delayed messages of these tasks."""
        broker = self._broker
        with broker.lock:
            gone = [m for m in broker.delayed if m.envelope.task_id and m.envelope.task_id in task_ids]
            broker.delayed = [message for message in broker.delayed if message not in gone]
            for message in gone:
                broker.release_lock(message.envelope.raw)
            found = {message.envelope.task_id for message in gone}
            return [task_id for task_id in dict.fromkeys(task_ids) if task_id in found]

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """Count what is ready."""
        with self._broker.lock:
            ready = self._broker.ready
            return {name: sum(len(ready[key]) for key in ready if key[0] == name) for name in queues}

    def oldest(self, queues: Sequence[str]) -> dict[str, float]:
        """Read the first message of each priority."""
        found: dict[str, float] = {}
        with self._broker.lock:
            for (queue, _), ready in self._broker.ready.items():
                at = published_in(ready[0].envelope.raw) if ready else 0.0
                if at and queue in queues:
                    found[queue] = min(at, found.get(queue, at))
        return found

    def purge(self, queues: Sequence[str]) -> int:
        """Delete what is ready."""
        with self._broker.lock:
            count = sum(self.depths(queues).values())
            for key in [key for key in self._broker.ready if key[0] in queues]:
                for message in self._broker.ready.pop(key):
                    self._broker.release_lock(message.envelope.raw)
            return count

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, newest first."""
        with self._broker.lock:
            return self._broker.dead[::-1][: max(0, limit)]

    def requeue_dead(self, tokens: Sequence[str]) -> int:
        """Put dead letters back at the end of their queues."""
        with self._broker.lock:
            buried = self._broker.buried
            messages = self._exhume(
                [t for t in tokens if t in buried and self._broker.take_lock(buried[t].envelope.raw)]
            )
            for message in messages:
                message.crashes = 0
            self._broker.put(messages, front=False)
            return len(messages)

    def purge_dead(self, tokens: Sequence[str]) -> int:
        """Delete dead letters."""
        with self._broker.lock:
            return len(self._exhume(tokens))

    def warnings(self) -> list[str]:
        """Nothing to warn of."""
        return []

    def close(self) -> None:
        """Leave. What is still held stays until the lease ends."""
        with self._broker.lock:
            if all(flight.owner != self._owner for flight in self._broker.in_flight.values()):
                self._broker.leases.pop(self._owner, None)
            self._hang_up()

    def _next(self, queues: Sequence[str], limit: int) -> list[_Message]:
        """Remove the next messages from their places: by priority and queue as the order has it, oldest first."""
        order, ready = self._order.queues(queues), self._broker.ready
        steps = sorted({priority for _, priority in ready})
        levels = self._order.levels([[(q, step) for q in order if ready.get((q, step))] for step in steps])
        if limit <= 0 or not levels.all:
            return []
        shelf = _Shelf(ready)
        taken = carry_out(self._order.plan(levels, limit), levels, limit, shelf.read)
        return [message for run in self._order.took(levels, taken) for message in shelf.runs[run]]

    def _take(self, message: _Message) -> Delivery:
        tag = self._broker.next_tag()
        self._broker.in_flight[tag] = _InFlight(message, self._owner)
        return _delivery(tag, message)

    def _held(self, tag: str) -> _Message | None:
        flight = self._broker.in_flight.get(tag)
        return flight.message if flight is not None and flight.owner == self._owner else None

    def _settle(self, items: Sequence[tuple[str, object]], action: Callable[..., None]) -> Settled:
        with self._broker.lock:
            lost = []
            for tag, item in items:
                message = self._held(tag)
                if message is None:
                    lost.append(tag)
                else:
                    del self._broker.in_flight[tag]
                    action(message, item)
            return Settled(len(items) - len(lost), lost)

    def _letter(self, rejection: Rejection) -> DeadLetter:
        delivery, at = rejection.delivery, self._broker.clock.time()
        details = dict(rejection.details)
        return DeadLetter(delivery.tag, delivery.queue, rejection.reason, delivery.crashes, at, details, delivery.raw)

    def _exhume(self, tokens: Sequence[str]) -> list[_Message]:
        wanted = [token for token in dict.fromkeys(tokens) if token in self._broker.buried]
        self._broker.dead = [letter for letter in self._broker.dead if letter.token not in wanted]
        return [self._broker.buried.pop(token) for token in wanted]

    def _recover(self) -> int:
        now = self._broker.clock.monotonic()
        alive = {owner for owner, ends in self._broker.leases.items() if ends > now} | {self._owner}
        flights = sorted(self._broker.in_flight.items())
        tags = [tag for tag, flight in flights if flight.owner not in alive][-_BATCH:]
        found = [self._broker.in_flight.pop(tag) for tag in tags]
        for flight in found:
            flight.message.crashes += flight.started
        self._broker.put([flight.message for flight in found], front=True)
        return len(tags)

    def _look_again_s(self) -> float | None:
        now = self._broker.clock.monotonic()
        waits = [ends - now for owner, ends in self._broker.leases.items() if owner != self._owner and ends > now]
        return min(waits, default=None)

    def _renew(self) -> None:
        self._broker.leases[self._owner] = self._broker.clock.monotonic() + self._lease_s

    def _wake(self, queue: str | None) -> None:
        if self._pipe and (queue is None or queue in self._queues):
            with suppress(BlockingIOError):
                os.write(self._pipe[1], b"\0")

    def _hang_up(self) -> None:
        with self._broker.lock:
            if self._wake in self._broker.armed:
                self._broker.armed.remove(self._wake)
            for end in self._pipe or ():
                os.close(end)
            self._pipe = None


class _Shelf:
    """Takes messages off their places, up to the bytes of one call. `runs` holds what each read gave."""

    def __init__(self, ready: dict[Place, list[_Message]]) -> None:
        self.runs: list[list[_Message]] = []
        self._ready = ready
        self._room = _BATCH_BYTES

    def read(self, place: Place, count: int) -> tuple[int, bool]:
        """As `carry_out` wants it."""
        waiting, run = self._ready[place], list[_Message]()
        while waiting and len(run) < count and self._room > 0:
            run.append(waiting.pop(0))
            self._room -= len(run[-1].envelope.raw)
        if run:
            self.runs.append(run)
        return len(run), not waiting


def _delivery(tag: str, message: _Message) -> Delivery:
    return Delivery(tag, message.envelope.queue, message.envelope.raw, message.crashes)
