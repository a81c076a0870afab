"""How a message's end is told to SQS: which requests it is made of, and in which order. Always send before delete.

Called by the adapter's verbs in the consumer thread, and by pollers for what they have to give back. Nothing here
waits: the outbox does what is decided here, and calls back when SQS has confirmed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..core import log_events, logs
from ..core.clock import SystemClock
from ..core.errors import ConfigError, MessageError, QWorkerError
from .base import Envelope, Rejection
from .sqs_bad import BadMessages, Remembered
from .sqs_claims import Claim, Claims, visibility
from .sqs_errors import Trouble
from .sqs_letters import REFRESH_AT, anew, id_of, is_listed, named
from .sqs_ops import DELETE, SEND, VISIBILITY, Op, Result
from .sqs_outbox import Outbox
from .sqs_payloads import Payloads
from .sqs_queues import Directory, Queue
from .sqs_url import MOST_CLAIM_S
from .sqs_wire import CRASHES, MOST_DELAY_S, Entry, entry_of

logger = logging.getLogger("qworker.transports")

#: One whose count of receives grows although it is sent anew (REFRESH_AT) takes its workers down: it is dead. FIFO
#: messages cannot be sent anew.
LETHAL_AT: Final = 10
LETHAL_FIFO_AT: Final = 20
#: What the worker takes for the last crash (worker/suspects.py).
_ENOUGH: Final = 3
#: Early messages that are parked by their visibility, because all of a queue's flights are limited.
MOST_PARKED: Final = 10_000
#: What a long poll has just brought is ours for so long at least, although nobody knows since when.
_HANDED_OUT_S: Final = 1.0
#: A parked message must come back so long before its queue forgets it.
_RETENTION_MARGIN_S: Final = 3600


#: What follows a task, ready to be sent.
Sends = list[tuple[Queue, Entry]]


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
    ) -> None:
        self._directory = directory
        self._claims = claims
        self._outbox = outbox
        self._payloads = payloads
        self._is_plain = not options.get("sqs_base64_encoding", True)
        self._ready = ready
        self._again = again
        self._boottime = SystemClock().boottime
        self._lock = threading.Lock()
        self._parked: list[float] = []
        self._bad = BadMessages(
            directory, outbox, options, hide=self._hide, delete=lambda claim: self._delete(claim, is_urgent=True)
        )
        self._done = Remembered()  # which may come a second time
        self.late = 0  # acks whose claim had ended

    # ---- received ----

    def adopt(self, claims: list[Claim]) -> list[Claim]:
        """Judge what was received: what was found bad before goes back, what seems lethal counts as crashed."""
        good = []
        for claim in claims:
            if claim in self._done:
                logs.say(
                    logger,
                    logging.INFO,
                    log_events.DUPLICATE_DELETED,
                    "{claim} has come once more after it was deleted: it is deleted again",
                    claim=named(claim),
                )
                self._delete(claim)
                continue
            if claim in self._bad:
                self._bad.dismiss(claim)
                continue
            lethal_at = LETHAL_FIFO_AT if claim.queue.is_fifo else LETHAL_AT
            if claim.received.receives >= lethal_at and not claim.queue.traits.max_receives and not is_listed(claim):
                claim.crashes = max(claim.crashes, _ENOUGH)
            good.append(claim)
        return good

    # ---- the end ----

    def prepared(self, claim: Claim, successors: Sequence[Envelope]) -> Sends | QWorkerError:
        """What `ack` has to send, or why that is not possible. Raises TransportError when it cannot be known now."""
        try:
            return [self._send_of(envelope, claim) for envelope in successors]
        except (MessageError, ConfigError) as error:  # too large, or no such queue
            return error

    def ack(self, claim: Claim, sends: Sends | QWorkerError) -> None:
        """Send what follows, then delete."""
        if isinstance(sends, QWorkerError):
            self._refuse_successor(claim, sends)
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
            if is_last and Trouble.LATE in refused:
                self._late(claim, Trouble.LATE)
            elif is_last and refused:
                self._refuse_successor(claim, refused[0])
            elif is_last:
                self._finish(claim)

        for queue, entry in sends:
            self._put(Op(SEND, queue, entry, sent, until=lambda: claim.until))

    def delete_op(self, claim: Claim) -> Op:
        """The delete alone, for who waits for it."""
        claim.is_settling = claim.is_acked = True
        return Op(DELETE, claim.queue, {"ReceiptHandle": claim.received.handle})

    def deleted(self, claim: Claim) -> None:
        """SQS has confirmed."""
        self._done.note(claim)
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
        """To the dead letters, or where else its queue has bad messages go (sqs_bad.py)."""
        self._bad.reject(rejection, claim)

    def _refuse_successor(self, claim: Claim, error: object) -> None:
        """What a task starts must not get lost: its own message becomes the dead letter that tells of it."""
        logs.say(
            logger,
            logging.ERROR,
            log_events.SUCCESSORS_UNSENT,
            "what follows {claim} cannot be sent: {error}",
            claim=named(claim),
            error=error,
        )
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
        if has_news or receives >= REFRESH_AT or (most and receives >= most) or is_listed(claim):
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
                logger.debug("%s was not given back, the end of its claim does that (%s)", named(claim), result)
            self.give_back(self._claims.give_up(claim))

        until = self._while_ours(claim)
        self._put(Op(VISIBILITY, claim.queue, visibility(claim, seconds), done, is_urgent=True, until=until))

    def _send_anew(self, claim: Claim, wait_s: float) -> None:
        """The same bytes as a new message that bears our counters, then delete the old one."""
        claim.is_settling = True

        def sent(result: Result) -> None:
            if result is None:
                self._delete(claim, is_urgent=True)
            elif result is Trouble.LATE:
                self.give_back(self._claims.give_up(claim))
            else:
                logs.say(
                    logger,
                    logging.WARNING,
                    log_events.RESEND_FAILED,
                    "{claim} could not be sent anew ({error}): it goes back as it is",
                    claim=named(claim),
                    error=result,
                )
                self._hide(claim, min(wait_s, MOST_DELAY_S))

        until = self._while_ours(claim)
        self._put(Op(SEND, claim.queue, anew(claim, wait_s), sent, is_urgent=True, until=until))

    def _while_ours(self, claim: Claim) -> Callable[[], float]:
        """Up to when what is done to it meets nobody else's."""
        certain = self._boottime() + _HANDED_OUT_S
        return lambda: max(claim.until, certain)

    def _delete(self, claim: Claim, *, is_urgent: bool = False) -> None:
        def done(result: Result) -> None:
            if result is None or result is Trouble.MISSING:  # the queue is gone, and the message with it
                self.deleted(claim)
                return
            self._done.note(claim)
            self._late(claim, result)

        # In a group others wait for it.
        is_urgent = is_urgent or claim.queue.is_fifo
        self._put(Op(DELETE, claim.queue, {"ReceiptHandle": claim.received.handle}, done, is_urgent=is_urgent))

    def _late(self, claim: Claim, result: Result) -> None:
        with self._lock:
            self.late += 1
        why = result.value if isinstance(result, Trouble) else result
        logs.say(
            logger,
            logging.WARNING,
            log_events.ACK_LATE,
            "the ack of {claim} came too late ({why}): it may run again",
            claim=named(claim),
            why=why,
        )
        self.give_back(self._claims.give_up(claim))

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
