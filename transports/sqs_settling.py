"""How a message's end is told to SQS: which requests it is made of, and in which order. Always send before delete.

Called by the adapter's verbs in the consumer thread, and by pollers for what they have to give back. Nothing here
waits: the outbox does what is decided here, and calls back when SQS has confirmed.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..core.clock import SystemClock
from ..core.errors import ConfigError, MessageError, QWorkerError
from .base import Envelope, Rejection
from .sqs_claims import Claim, Claims, visibility
from .sqs_outbox import DELETE, SEND, VISIBILITY, Op, Outbox, Result
from .sqs_payloads import Payloads
from .sqs_queues import Directory, Queue
from .sqs_url import MOST_CLAIM_S
from .sqs_wire import (
    ATTEMPTS,
    CRASHES,
    MOST_ATTRIBUTES,
    MOST_DELAY_S,
    Attributes,
    Entry,
    delay_s,
    entry_of,
    number,
    text,
    weight_of,
)

logger = logging.getLogger("qworker.transports")

#: A message that has been received so often is sent anew when it is given back, so that its count starts again …
REFRESH_AT: Final = 5
#: … and one whose count grows all the same takes its workers down: it is dead. FIFO messages cannot be sent anew.
LETHAL_AT: Final = 10
LETHAL_FIFO_AT: Final = 20
#: What the worker takes for the last crash (worker/suspects.py).
_ENOUGH: Final = 3
#: Why a run's message is given back to be tried again (tasks/execute.py): no bad message.
_FAILED: Final = "failed"
#: A bad message that nobody wants is hidden for so long at a time.
HIDDEN_S: Final = 11 * 3600
#: Early messages that are parked by their visibility, because all of a queue's flights are limited.
MOST_PARKED: Final = 10_000
#: A parked message must come back so long before its queue forgets it.
_RETENTION_MARGIN_S: Final = 3600
_MOST_REMEMBERED: Final = 10_000
_MOST_DETAILS: Final = 4096


class Settling:
    """Decides. Any thread. `ready` gets what of a FIFO group may run next, `again` what is to run again here."""

    def __init__(
        self,
        directory: Directory,
        claims: Claims,
        outbox: Outbox,
        options: Mapping[str, Any],
        payloads: Payloads,
        *,
        ready: Callable[[list[Claim]], None],
        again: Callable[[Claim], None],
        forget: Callable[[Claim], None],
    ) -> None:
        self._directory = directory
        self._claims = claims
        self._outbox = outbox
        self._payloads = payloads
        self._dead_letter_queue: str | None = options.get("dead_letter_queue")
        self._is_plain = not options.get("sqs_base64_encoding", True)
        self._ready = ready
        self._again = again
        self._forget = forget
        self._boottime = SystemClock().boottime
        self._lock = threading.Lock()
        self._parked: list[float] = []
        # Message ids that are not to be run again here: bad ones, and those that are done and come a second time.
        self._bad: OrderedDict[str, None] = OrderedDict()
        self._done: OrderedDict[str, None] = OrderedDict()
        self.late = 0  # acks whose claim had ended

    # ---- received ----

    def adopt(self, claims: list[Claim]) -> list[Claim]:
        """Judge what was received: what was found bad before goes back, what seems lethal counts as crashed."""
        good = []
        for claim in claims:
            if claim.received.id in self._done:
                logger.info("%s has come once more after it was deleted: it is deleted again", _named(claim))
                self._delete(claim)
                continue
            if claim.received.id in self._bad:
                self._dismiss(claim)
                continue
            lethal_at = LETHAL_FIFO_AT if claim.queue.is_fifo else LETHAL_AT
            if claim.received.receives >= lethal_at and not claim.queue.traits.max_receives and not _is_listed(claim):
                claim.crashes = max(claim.crashes, _ENOUGH)
            good.append(claim)
        return good

    # ---- the end ----

    def ack(self, claim: Claim, successors: Sequence[Envelope]) -> None:
        """Send what follows, then delete."""
        try:
            sends = [self._send_of(envelope, claim) for envelope in successors]
        except (MessageError, ConfigError) as error:  # too large, or no such queue
            self._refuse_successor(claim, error)
            return
        claim.is_settling = True
        if not sends:
            self._finish(claim)
            return
        left = len(sends)
        refused: list[Result] = []

        def sent(result: Result) -> None:
            nonlocal left
            with self._lock:
                left -= 1
                is_last = left == 0
                if result is not None:
                    refused.append(result)
            if is_last and refused:
                self._refuse_successor(claim, refused[0])
            elif is_last:
                self._finish(claim)

        for queue, entry in sends:
            self._put(Op(SEND, queue, entry, sent))

    def delete_op(self, claim: Claim) -> Op:
        """The delete alone, for who waits for it."""
        claim.is_settling = claim.is_acked = True
        return Op(DELETE, claim.queue, {"ReceiptHandle": claim.received.handle})

    def deleted(self, claim: Claim) -> None:
        """SQS has confirmed."""
        self._note(self._done, claim)
        if claim.is_acked:
            self._payloads.acked(claim)
        self._ready(self._claims.leave(claim))

    def give_back(self, claims: Sequence[Claim], due: float | None = None) -> None:
        """To their queues, unchanged and uncounted: at once, or not before `due`."""
        wait_s = 0.0 if due is None else max(0.0, due - time.time())
        for claim in claims:
            if not claim.is_gone:
                self._give_back(claim, wait_s)

    def crashed(self, claim: Claim, due: float | None) -> None:
        """Its child has died: counted, and run again."""
        wait_s = 0.0 if due is None else max(0.0, due - time.time())
        claim.crashes += 1
        if claim.queue.is_fifo and not wait_s:
            self._claims.anew(claim)
            self._again(claim)
        elif claim.queue.is_fifo:
            self._hide(claim, wait_s)
        else:
            self._send_anew(claim, wait_s)

    def reject(self, rejection: Rejection, claim: Claim) -> None:
        """To the dead letters: by the queue's redrive policy, else to the option's queue, else out of sight."""
        traits, backoff = claim.queue.traits, claim.queue.backoff
        if rejection.reason == _FAILED and _is_listed(claim):
            runs = claim.attempts + claim.received.receives
            wait_s = backoff.wait_s(runs)
            logger.info("%s has failed for the %d. time: again in %g s", _named(claim), runs, wait_s)
            self._hide(claim, wait_s)
        elif traits.max_receives:
            logger.error(
                "%s is left to the redrive policy of its queue (receive %d of %d): %s",
                _named(claim), claim.received.receives, traits.max_receives, rejection.reason,
            )  # fmt: skip
            if rejection.reason != _FAILED:
                self._note(self._bad, claim)
            self._hide(claim, 0)
        elif self._dead_letter_queue:
            self._bury(claim, rejection)
        else:
            logger.error(
                "%s cannot run (%s): it is hidden for %d h at a time, because its queue has no redrive policy and no "
                "dead_letter_queue is set", _named(claim), rejection.reason, HIDDEN_S // 3600,
            )  # fmt: skip
            self._note(self._bad, claim)
            self._hide(claim, HIDDEN_S)

    def _refuse_successor(self, claim: Claim, error: object) -> None:
        """What a task starts must not get lost: its own message becomes the dead letter that tells of it."""
        logger.error("what follows %s cannot be sent: %s", _named(claim), error)
        self.reject(Rejection(claim.delivery(), "successor_refused", {"error": str(error)}), claim)

    # ---- ways ----

    def _finish(self, claim: Claim) -> None:
        claim.is_acked = True
        self._delete(claim)

    def _give_back(self, claim: Claim, wait_s: float) -> None:
        if self._must_be_sent_anew(claim, wait_s):
            self._send_anew(claim, wait_s)
        else:
            self._hide(claim, wait_s)

    def _must_be_sent_anew(self, claim: Claim, wait_s: float) -> bool:
        if claim.queue.is_fifo:
            return False
        receives, most = claim.received.receives, claim.queue.traits.max_receives
        has_news = claim.crashes != claim.received.number(CRASHES)
        if has_news or receives >= REFRESH_AT or (most and receives >= most) or _is_listed(claim):
            return True
        return wait_s > 0 and not self._may_park(claim, wait_s)

    def _may_park(self, claim: Claim, wait_s: float) -> bool:
        held_s = self._boottime() - claim.got_at
        age_s = max(0.0, time.time() - claim.received.sent_at) if claim.received.sent_at else 0.0
        if held_s + wait_s > MOST_CLAIM_S - 60 or age_s + wait_s > claim.queue.traits.retention_s - _RETENTION_MARGIN_S:
            return False
        now = time.monotonic()
        with self._lock:
            if len(self._parked) >= MOST_PARKED:
                self._parked = [until for until in self._parked if until > now]
            if len(self._parked) >= MOST_PARKED:
                return False
            self._parked.append(now + wait_s)
        return True

    def _hide(self, claim: Claim, wait_s: float) -> None:
        """Invisible for so long, then in its queue: with 0 at once. Those behind it in its group go back as well."""
        claim.is_settling = claim.is_leaving = True
        held_s = self._boottime() - claim.got_at
        seconds = int(max(0, min(-(-wait_s // 1), MOST_CLAIM_S - held_s - 5)))

        def done(result: Result) -> None:
            if result is not None:
                logger.debug("%s was not given back: its claim has ended (%s)", _named(claim), result)
            self.give_back(self._claims.give_up(claim))

        self._put(Op(VISIBILITY, claim.queue, visibility(claim, seconds), done, is_urgent=True))

    def _send_anew(self, claim: Claim, wait_s: float) -> None:
        """The same bytes as a new message that bears our counters, then delete the old one."""
        claim.is_settling = True
        received = claim.received
        # Of a listed task every receive before this one was a run that failed; of others nobody wants to know.
        attempts = claim.attempts + (received.receives - 1 if _is_listed(claim) else 0)
        attributes = _kept(received.attributes)
        if claim.crashes:
            attributes[CRASHES] = number(claim.crashes)
        if attempts > 0:
            attributes[ATTEMPTS] = number(attempts)
        entry: Entry = {"MessageBody": received.body, "DelaySeconds": delay_s(wait_s)}
        if attributes:
            entry["MessageAttributes"] = attributes
        if received.group:
            entry["MessageGroupId"] = received.group

        def sent(result: Result) -> None:
            if result is None:
                self._delete(claim, is_urgent=True)
            else:
                logger.warning("%s could not be sent anew (%s): it goes back as it is", _named(claim), result)
                self._hide(claim, min(wait_s, MOST_DELAY_S))

        self._put(Op(SEND, claim.queue, entry, sent, is_urgent=True))

    def _bury(self, claim: Claim, rejection: Rejection) -> None:
        claim.is_settling = True
        try:
            queue = self._directory.find(str(self._dead_letter_queue))
        except QWorkerError as error:
            logger.error("%s; %s is hidden instead", error, _named(claim))
            self._hide(claim, HIDDEN_S)
            return
        entry = _letter(claim, rejection, is_fifo=queue.is_fifo)

        def sent(result: Result) -> None:
            if result is None:
                self._delete(claim, is_urgent=True)
            else:
                logger.error("%s could not be sent to %s (%s): it is hidden", _named(claim), queue.name, result)
                self._hide(claim, HIDDEN_S)

        self._put(Op(SEND, queue, entry, sent, is_urgent=True))

    def _delete(self, claim: Claim, *, is_urgent: bool = False) -> None:
        def done(result: Result) -> None:
            if result is None:
                self.deleted(claim)
                return
            self._note(self._done, claim)
            with self._lock:
                self.late += 1
            logger.warning("the ack of %s came too late (%s): it may run again", _named(claim), result)
            self.give_back(self._claims.give_up(claim))

        # In a group others wait for it.
        is_urgent = is_urgent or claim.queue.is_fifo
        self._put(Op(DELETE, claim.queue, {"ReceiptHandle": claim.received.handle}, done, is_urgent=is_urgent))

    def _dismiss(self, claim: Claim) -> None:
        """It is known to be bad: back to its redrive policy, ever later, or out of sight again."""
        rounds = claim.received.receives
        if claim.queue.traits.max_receives:
            self._hide(claim, 0.0 if rounds < REFRESH_AT else min(rounds, 60))
        else:
            self._hide(claim, HIDDEN_S)

    def _note(self, ids: OrderedDict[str, None], claim: Claim) -> None:
        with self._lock:
            ids[claim.received.id] = None
            while len(ids) > _MOST_REMEMBERED:
                ids.popitem(last=False)

    def _send_of(self, envelope: Envelope, parent: Claim) -> tuple[Queue, Entry]:
        queue = self._directory.find(envelope.queue)
        most = self._directory.traits(queue).max_bytes
        envelope = self._payloads.stowed(envelope, most)
        # The same task once more, with the parent's deduplication id: SQS would drop it.
        is_anew = bool(envelope.task_id) and envelope.task_id == id_of(parent.received.raw)
        return queue, entry_of(
            envelope,
            is_fifo=queue.is_fifo,
            now=time.time(),
            most_bytes=most,
            plain=self._is_plain,
            is_anew=is_anew or queue is parent.queue,
        )

    def _put(self, op: Op) -> None:
        self._outbox.put([op])


def task_of(raw: bytes) -> str:
    """The task's name in an envelope; empty when it names none."""
    return _header(raw, "task")


def id_of(raw: bytes) -> str:
    """The task's id in an envelope."""
    return _header(raw, "id")


def _header(raw: bytes, name: str) -> str:
    try:
        return str(json.loads(raw)["headers"][name])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _is_listed(claim: Claim) -> bool:
    """Whether this queue's backoff policy is for this message's task."""
    tasks = claim.queue.backoff.tasks
    return bool(tasks) and task_of(claim.received.raw) in tasks


def _named(claim: Claim) -> str:
    task, task_id = task_of(claim.received.raw), id_of(claim.received.raw)
    name = f"Task {task}[{task_id}]" if task_id else f"message {claim.received.id}"
    return f"{name} on {claim.queue.name}"


def _kept(attributes: Attributes) -> Attributes:
    """A producer's own attributes, and how the body is written; there is room for our two counters."""
    kept = {name: value for name, value in attributes.items() if name not in (CRASHES, ATTEMPTS)}
    return dict(list(kept.items())[: MOST_ATTRIBUTES - 2])


def _letter(claim: Claim, rejection: Rejection, *, is_fifo: bool) -> Entry:
    """The dead letter: the very body, and beside it why."""
    details = json.dumps(dict(rejection.details), default=str)
    ours = {
        "qworker.reason": text(rejection.reason),
        "qworker.queue": text(claim.queue.name),
        "qworker.died_at": text(f"{time.time():.3f}"),
        CRASHES: number(rejection.delivery.crashes),
    }
    entry: Entry = {"MessageBody": claim.received.body}
    attributes = {**dict(list(_kept(claim.received.attributes).items())[: MOST_ATTRIBUTES - 5]), **ours}
    entry["MessageAttributes"] = attributes
    room = min(_MOST_DETAILS, claim.queue.traits.max_bytes - weight_of(entry) - 64)
    if room > 0:
        attributes["qworker.details"] = text(_shortened(rejection.details, details, room))
    if is_fifo:
        entry["MessageGroupId"] = claim.received.group or "default"
        entry["MessageDeduplicationId"] = claim.received.id
    return entry


def _shortened(details: Mapping[str, Any], whole: str, room: int) -> str:
    """JSON that fits: long texts lose their ends."""
    for most in (2000, 500, 100, 20):
        if len(whole) <= room:
            return whole
        cut = {key: value[:most] if isinstance(value, str) else str(value)[:most] for key, value in details.items()}
        whole = json.dumps(cut)
    return whole if len(whole) <= room else "{}"
