"""What the broker in memory keeps: messages by place, owners' leases, locks. Used by memory.py only.

The lock makes each verb one step; the caller holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..core.clock import Clock, SystemClock
from ..transports import DeadLetter, Envelope, Place, seal_of

#: Messages moved by one housekeeping call, and bytes handed out by one reserve.
BATCH: Final = 500
_BATCH_BYTES: Final = 16 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Message:
    """One message and what is known of it."""

    envelope: Envelope
    crashes: int = 0
    due: float = 0.0
    front: bool = False  # where it goes when due


@dataclass(slots=True)
class InFlight:
    """A message in somebody's hands."""

    message: Message
    owner: str
    started: bool = False


class MemoryBroker:
    """What a server would keep. The lock makes each verb one step; use it through MemoryTransport."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.lock = threading.RLock()
        self.ready: dict[tuple[str, int], list[Message]] = {}
        self.delayed: list[Message] = []
        self.in_flight: dict[str, InFlight] = {}
        self.dead: list[DeadLetter] = []
        self.buried: dict[str, Message] = {}  # the messages of the dead letters, by token
        self.leases: dict[str, float] = {}
        self.locks: dict[str, tuple[str, float]] = {}  # of unique messages: nonce and end
        self.armed: list[Callable[[str | None], None]] = []
        self._tags = 0

    def next_tag(self) -> str:
        """A tag that was never used before. Tags of one broker sort by age."""
        self._tags += 1
        return f"m{self._tags:012}"

    def put(self, messages: Sequence[Message], *, front: bool) -> None:
        """Make messages ready: at the back in this order, or at the front so that the first one is the next."""
        for message in reversed(messages) if front else messages:
            waiting = self.ready.setdefault((message.envelope.queue, message.envelope.priority), [])
            waiting.insert(0 if front else len(waiting), message)
            self.tell(message.envelope.queue)

    def delay(self, message: Message, due: float) -> None:
        """Keep a message until its time has come."""
        message.due = due
        self.delayed.append(message)
        self.delayed.sort(key=lambda m: m.due)
        if self.delayed[0] is message:
            self.tell(None)

    def publish(self, envelopes: Iterable[Envelope]) -> list[Envelope]:
        """Put or delay new messages; return those that did not get their lock."""
        back: list[Message] = []
        front: list[Message] = []
        refused: list[Envelope] = []
        for envelope in envelopes:
            if envelope.unique and not self.take_lock(envelope.raw, envelope.due):
                refused.append(envelope)
            elif envelope.due is not None and envelope.due > self.clock.time():
                self.delay(Message(envelope, front=envelope.front), envelope.due)
            else:
                (front if envelope.front else back).append(Message(envelope))
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
        due = [message for message in self.delayed if message.due <= now][:BATCH]
        self.delayed = [message for message in self.delayed if message not in due]
        for message in due:
            self.put([message], front=message.front)
        return len(due)

    def tell(self, queue: str | None) -> None:
        """Wake whoever waits for `queue`, or for a change of due times (None)."""
        for wake in list(self.armed):
            wake(queue)


class Shelf:
    """Takes messages off their places, up to the bytes of one call. `runs` holds what each read gave."""

    def __init__(self, ready: dict[Place, list[Message]]) -> None:
        self.runs: list[list[Message]] = []
        self._ready = ready
        self._room = _BATCH_BYTES

    def read(self, place: Place, count: int) -> tuple[int, bool]:
        """As `carry_out` wants it."""
        waiting, run = self._ready[place], list[Message]()
        while waiting and len(run) < count and self._room > 0:
            run.append(waiting.pop(0))
            self._room -= len(run[-1].envelope.raw)
        if run:
            self.runs.append(run)
        return len(run), not waiting
