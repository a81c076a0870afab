"""The Transport protocol: what every broker adapter does, in batch verbs, and the plain data that they exchange.

Producers use `publish`; a worker's consumer thread uses the rest. A transport object belongs to one thread at a time.
Every verb is atomic per message: a crash at any moment leaves each message in exactly one place (P1).
Every verb raises TransportError when the broker cannot be reached or does not answer in time; the caller
may repeat the call: what was already carried out is not carried out twice (settling verbs settle only what the owner
still holds). The exceptions: a `publish` that timed out may have happened, and what a timed-out `reserve` took is
found by `recall`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as the wire carries it, on its way to `queue`.

    `raw` is the JSON envelope of the Celery wire protocol (UTF-8). `priority` is 0 (first) to 9 (last).
    `due` is seconds since the epoch: the message waits on the broker until then; None = at once.
    `front` puts it at the front of its queue (the next to be reserved) instead of the back.
    `task_id` is that of `raw`, so that a delayed message can be discarded by it. `unique`: `raw` has a header `unique`
    (unique.py), and is published only if no other message has that lock.
    """

    queue: str
    raw: bytes
    priority: int = 0
    due: float | None = None
    front: bool = False
    task_id: str = ""
    unique: bool = False


class Delivery:
    """One receipt of a message by this worker. Hot path: a plain slots class, made once per message.

    `tag` is the receipt handle (unique among what is in flight), `queue` the queue's name, `raw` the envelope's
    original bytes, `crashes` how many children have died with this message so far. `sent_at`: when it was put on the
    queue (seconds since the epoch), where the broker knows, else 0.
    """

    __slots__ = ("crashes", "queue", "raw", "sent_at", "tag")

    def __init__(self, tag: str, queue: str, raw: bytes, crashes: int = 0, sent_at: float = 0.0) -> None:
        self.tag = tag
        self.queue = queue
        self.raw = raw
        self.crashes = crashes
        self.sent_at = sent_at

    def __repr__(self) -> str:
        return f"Delivery(tag={self.tag!r}, queue={self.queue!r}, bytes={len(self.raw)}, crashes={self.crashes})"


@dataclass(frozen=True, slots=True)
class Ack:
    """Settle `delivery` for good and, in the same atomic step, publish `successors` (a retry, the next chain link).

    `at_once`: the task starts as soon as `ack` returns, so a transport that settles later must not do so here.
    """

    delivery: Delivery
    successors: Sequence[Envelope] = ()
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """Move `delivery` to the dead-letter store. `reason` is a short constant (`unknown_task`), `details` plain data."""

    delivery: Delivery
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settling call did: `lost` are the tags that this owner no longer held (nothing was changed for them).

    `now`: the broker's time of day (seconds since the epoch), told by `extend` where the broker has its own clock.
    """

    done: int
    lost: Sequence[str] = ()
    now: float | None = None


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What `maintain` did. `next_due_s`: seconds until the earliest delayed message is due, None when there is none.

    `more` is true when a bounded batch was full: call again soon. `look_again_s`: seconds until another owner's lease
    ends; whoever looks then finds the dead at once.
    """

    moved: int = 0
    recovered: int = 0
    next_due_s: float | None = None
    more: bool = False
    look_again_s: float | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message in the dead-letter store. `died_at` is seconds since the epoch; `raw` the original bytes."""

    token: str
    queue: str
    reason: str
    crashes: int
    died_at: float
    details: Mapping[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Capabilities:
    """How transports differ, as data.

    `idle_poll_s`: how often an idle consumer has to ask (None: `wake_fd` tells). `max_batch`: most messages in one
    call. `native_priority`: whether priorities have an effect. `fetch_size`: so many messages cost as much to fetch as
    one. `max_claim_s`: the longest that a message can be held (None: without end). `knows_holders`: whether the broker
    knows in whose name a message is held, so that another connection in that name finds it (`recall`).
    """

    max_batch: int = 1000
    idle_poll_s: float | None = None
    native_priority: bool = True
    fetch_size: int = 1
    max_claim_s: float | None = None
    knows_holders: bool = True


class Transport(Protocol):
    """One broker, seen by one owner (a worker) or by a producer (owner is an empty string)."""

    capabilities: Capabilities

    def connect(self) -> None:
        """Reach the broker. Drops a connection that exists: also the way to reconnect.

        A producer is connected by its first verb, and again after an error. A worker is connected by this verb alone,
        because `wake_fd` changes and `recall` has to follow. Raises TransportError, or ConfigError when trying again
        cannot help (a wrong password, a file that may not be written).
        """
        ...

    def publish(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Put every envelope where it belongs: its queue, or the delayed set when `due` lies ahead.

        Returns those that were not published, because they are `unique` and another message has their lock.
        """
        ...

    def reserve(self, queues: Sequence[str], limit: int, *, arm: bool = False) -> list[Delivery]:
        """Take up to `limit` messages under this owner's lease, best priority first, oldest first.

        With `arm`, an empty answer also promises that `wake_fd` becomes readable when something arrives on one of
        `queues` or the time of a delayed message changes. Never waits. A `limit` of 0 takes nothing and says that
        nothing is wanted for now: a transport that fetches ahead gives back what it has.
        """
        ...

    def wake_fd(self) -> int | None:
        """A descriptor for `select`, readable when there may be work, or None (then poll by `idle_poll_s`)."""
        ...

    def drain_wake(self) -> None:
        """Read and forget what made `wake_fd` readable. Raises TransportError if that connection has broken."""
        ...

    def extend(self, deliveries: Sequence[Delivery]) -> Settled:
        """Renew this owner's lease and everything it holds (`deliveries` may be empty). `lost` = no longer ours."""
        ...

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Note that a child runs these: if this owner dies, whoever recovers them counts one more crash for each.

        The mark ends when the message leaves this owner's hands, by whatever way. What is not held any more is passed
        over.
        """
        ...

    def mark_stopping(self) -> None:
        """This owner is being stopped: if it is killed before it has ended, nothing that it holds counts as crashed.

        Clears its marks, and ends all marking for good.
        """
        ...

    def ack(self, acks: Sequence[Ack]) -> Settled:
        """Settle for good; in the same atomic step publish the successors of those messages that were still held.

        A message's lock ends with it, unless one of its successors bears the same lock: a retry.
        """
        ...

    def recall(self, known: Collection[str]) -> list[Delivery]:
        """What the broker holds in this owner's name and whose tag is not in `known`.

        Called after a reconnect: a reserve whose reply was lost has taken messages that the worker never saw.
        """
        ...

    def requeue(self, deliveries: Sequence[Delivery], *, crashed: bool = False, due: float | None = None) -> Settled:
        """Give back, bytes untouched: to the front of their queues in this order, so that they are taken next.

        With `due` (seconds since the epoch, by the caller's clock) they go to the back instead, when that moment has
        come; one that has passed means now, behind everything that waits already. `crashed` adds one to each message's
        crash count.
        """
        ...

    def reject(self, rejections: Sequence[Rejection]) -> Settled:
        """Move to the dead-letter store. Their locks end."""
        ...

    def discard_delayed(self, task_ids: Sequence[str]) -> list[str]:
        """Delete the delayed messages of these tasks; return the ids of which there were any."""
        ...

    def maintain(self) -> Maintenance:
        """Move due delayed messages to their queues and give back what dead owners held; in bounded batches.

        What goes back has one crash more if it was marked as started, else as many as before.
        """
        ...

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """How many messages wait on each queue (all priorities; neither delayed nor in flight)."""
        ...

    def oldest(self, queues: Sequence[str]) -> dict[str, float]:
        """When the message that has waited longest on each queue was published, in seconds since the epoch.

        A queue is left out where nothing waits, or nobody knows: only messages of qworker's producers tell
        (`published.py`), and SQS shows none without taking it.
        """
        ...

    def purge(self, queues: Sequence[str]) -> int:
        """Delete what waits on the queues (not what is delayed or in flight); return how many."""
        ...

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, newest first."""
        ...

    def requeue_dead(self, tokens: Sequence[str]) -> int:
        """Put dead letters back: their original bytes, in this order, to the back of the queues they came from.

        Their crashes count from 0 again. Returns how many; a token that names no dead letter is skipped, and a letter
        whose queue cannot take it, or whose lock another message has taken, stays. After a TransportError some may be
        back already.
        """
        ...

    def purge_dead(self, tokens: Sequence[str]) -> int:
        """Delete dead letters; return how many. A token that names none is skipped."""
        ...

    def warnings(self) -> list[str]:
        """One sentence for each setting of the broker by which messages can get lost, and what to set instead."""
        ...

    def close(self) -> None:
        """Leave: end this owner's lease if it holds nothing. Never raises."""
        ...
