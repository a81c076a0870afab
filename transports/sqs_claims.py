"""What this worker holds on SQS: own tags, receipt handles, until when each claim is certain, and FIFO's groups.

Shared by the pollers (who make claims), the consumer thread (which renews and settles them) and the outbox (which says
when SQS has confirmed): every method takes the one lock, and none of them makes a request.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Any

from .base import Delivery
from .sqs_queues import Queue
from .sqs_wire import ATTEMPTS, CRASHES, Received


class Claim:
    """One receipt of one message. `until` is the moment (CLOCK_BOOTTIME) up to which nobody else can get it."""

    __slots__ = (
        "attempts",
        "crashes",
        "got_at",
        "is_acked",
        "is_gone",
        "is_leaving",
        "is_settling",
        "is_told",
        "pointer",
        "queue",
        "received",
        "tag",
        "until",
    )

    def __init__(self, queue: Queue, received: Received, got_at: float, until: float) -> None:
        self.queue = queue
        self.received = received
        self.got_at = got_at
        self.until = until
        self.crashes = received.number(CRASHES)
        self.attempts = received.number(ATTEMPTS)
        self.tag = ""
        self.is_settling = False  # its end is in the outbox
        self.is_acked = False  # and that end is a delete for good
        self.is_leaving = False  # its visibility is being changed for the last time: no renewal must undo that
        self.is_gone = False  # settled, or lost
        self.is_told = False  # that its twelve hours end
        self.pointer = b""  # the envelope that was received, where `received.raw` comes from S3

    def delivery(self) -> Delivery:
        """As the worker sees it."""
        return Delivery(self.tag, self.queue.name, self.received.raw, self.crashes, self.received.sent_at)


class Claims:
    """All claims of one transport."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Of another connection's tags none is ours.
        self._prefix = os.urandom(6).hex()
        self._numbers = count(1)
        self._by_tag: dict[str, Claim] = {}
        self._by_id: dict[str, Claim] = {}
        self._groups: dict[tuple[Queue, str], deque[Claim]] = {}

    def __len__(self) -> int:
        """How many are held, settling ones included."""
        return len(self._by_tag)

    def enter(self, claims: Iterable[Claim]) -> list[Claim]:
        """Give each its tag; return those that may run now. Of a FIFO group that is the first alone.

        What we hold may come once more, from a standard queue at any time, from a FIFO queue after its claim has ended:
        it goes on under the newer receipt.
        """
        ready = []
        with self._lock:
            for claim in claims:
                held = self._by_id.get(claim.received.id)
                if held is not None and not held.is_leaving:
                    claim.is_gone = True
                    held.received = held.received._replace(handle=claim.received.handle)
                    held.until = max(held.until, claim.until)
                    continue
                self._by_id[claim.received.id] = claim
                claim.tag = f"{self._prefix}-{next(self._numbers)}"
                self._by_tag[claim.tag] = claim
                if self._is_first(claim):
                    ready.append(claim)
        return ready

    def anew(self, claim: Claim) -> None:
        """Give it a new tag: it is delivered once more under the same receipt."""
        with self._lock:
            self._by_tag.pop(claim.tag, None)
            claim.tag = f"{self._prefix}-{next(self._numbers)}"
            claim.is_settling = False
            self._by_tag[claim.tag] = claim

    def get(self, tag: str) -> Claim | None:
        """The claim that may be settled under this tag; None when it is settled or lost."""
        claim = self._by_tag.get(tag)
        return None if claim is None or claim.is_settling else claim

    def all(self) -> list[Claim]:
        """Everything that is held."""
        with self._lock:
            return list(self._by_tag.values())

    def behind(self) -> list[Claim]:
        """Those that wait for the first of their group."""
        with self._lock:
            return [claim for line in self._groups.values() for claim in list(line)[1:]]

    def leave(self, claim: Claim) -> list[Claim]:
        """It is deleted: forget it; returns what of its group may run now."""
        was_first, behind = self._drop(claim)
        return behind[:1] if was_first else []

    def give_up(self, claim: Claim) -> list[Claim]:
        """It is given back or lost: forget it and those behind it in its group, which must not overtake it.

        Returns those, to be given back too.
        """
        behind = self._drop(claim)[1]
        for other in behind:
            self._drop(other)
        return behind

    def _drop(self, claim: Claim) -> tuple[bool, list[Claim]]:
        """Forget one claim; returns whether it was the first of its group, and those behind it."""
        with self._lock:
            claim.is_gone = True
            self._by_tag.pop(claim.tag, None)
            if self._by_id.get(claim.received.id) is claim:
                del self._by_id[claim.received.id]
            key = _group_of(claim)
            line = self._groups.get(key) if key else None
            if key is None or line is None or claim not in line:
                return False, []
            at = line.index(claim)
            line.remove(claim)
            if not line:
                del self._groups[key]
            return at == 0, list(line)[at:]

    def _is_first(self, claim: Claim) -> bool:
        key = _group_of(claim)
        if key is None:
            return True
        line = self._groups.setdefault(key, deque())
        line.append(claim)
        return line[0] is claim


def _group_of(claim: Claim) -> tuple[Queue, str] | None:
    return (claim.queue, claim.received.group) if claim.queue.is_fifo else None


def visibility(claim: Claim, seconds: int) -> dict[str, Any]:
    """The entry of a request."""
    return {"ReceiptHandle": claim.received.handle, "VisibilityTimeout": seconds}
