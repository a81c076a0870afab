"""A broker in memory: the Transport contract without a server, with a clock that the test may move.

It passes the same suite as the real adapters (tests/contract). Nothing survives the process, and nothing is shared
between processes; transports of one MemoryBroker see the same messages, from any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..transports import (
    Ack,
    Capabilities,
    DeadLetter,
    Delivery,
    Envelope,
    Maintenance,
    Order,
    Rejection,
    Settled,
    carry_out,
    published_in,
    task_id_in,
)
from .memory_broker import BATCH, InFlight, MemoryBroker, Message, Shelf


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

        def settle(message: Message, ack: Ack) -> None:
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
        back: list[Message] = []

        def settle(message: Message, _: None) -> None:
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

        def settle(message: Message, rejection: Rejection) -> None:
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
            return Maintenance(moved, recovered, next_due_s, BATCH in (moved, recovered), self._look_again_s())

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

    def _next(self, queues: Sequence[str], limit: int) -> list[Message]:
        """Remove the next messages from their places: by priority and queue as the order has it, oldest first."""
        order, ready = self._order.queues(queues), self._broker.ready
        steps = sorted({priority for _, priority in ready})
        levels = self._order.levels([[(q, step) for q in order if ready.get((q, step))] for step in steps])
        if limit <= 0 or not levels.all:
            return []
        shelf = Shelf(ready)
        taken = carry_out(self._order.plan(levels, limit), levels, limit, shelf.read)
        return [message for run in self._order.took(levels, taken) for message in shelf.runs[run]]

    def _take(self, message: Message) -> Delivery:
        tag = self._broker.next_tag()
        self._broker.in_flight[tag] = InFlight(message, self._owner)
        return _delivery(tag, message)

    def _held(self, tag: str) -> Message | None:
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

    def _exhume(self, tokens: Sequence[str]) -> list[Message]:
        wanted = [token for token in dict.fromkeys(tokens) if token in self._broker.buried]
        self._broker.dead = [letter for letter in self._broker.dead if letter.token not in wanted]
        return [self._broker.buried.pop(token) for token in wanted]

    def _recover(self) -> int:
        now = self._broker.clock.monotonic()
        alive = {owner for owner, ends in self._broker.leases.items() if ends > now} | {self._owner}
        flights = sorted(self._broker.in_flight.items())
        tags = [tag for tag, flight in flights if flight.owner not in alive][-BATCH:]
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


def _delivery(tag: str, message: Message) -> Delivery:
    return Delivery(tag, message.envelope.queue, message.envelope.raw, message.crashes)
