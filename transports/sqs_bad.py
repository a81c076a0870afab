"""What becomes of messages on SQS that cannot or may no longer run.

They are left to the queue's redrive policy, sent to the dead-letter queue, or, where there is neither, hidden. Those
that come again are known by their ids.

Called by settling, in the consumer thread and in pollers. Nothing here waits, as there.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..core import log_events, logs
from ..core.errors import QWorkerError
from .base import Rejection
from .sqs_claims import Claim
from .sqs_letters import REFRESH_AT, is_listed, letter, named
from .sqs_ops import SEND, Op, Result
from .sqs_outbox import Outbox
from .sqs_queues import Directory

logger = logging.getLogger("qworker.transports")

#: Why a run's message is given back to be tried again (tasks/run.py): no bad message.
_FAILED: Final = "failed"
#: A bad message that nobody wants is hidden for so long at a time.
HIDDEN_S: Final = 11 * 3600
_MOST_REMEMBERED: Final = 10_000


class Remembered:
    """Messages that are not to be run again here, each with a word why. The oldest are forgotten. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: OrderedDict[str, str] = OrderedDict()

    def note(self, claim: Claim, why: str = "") -> None:
        """Remember this one."""
        with self._lock:
            self._ids[claim.received.id] = why
            while len(self._ids) > _MOST_REMEMBERED:
                self._ids.popitem(last=False)

    def __contains__(self, claim: Claim) -> bool:
        return claim.received.id in self._ids

    def why(self, claim: Claim) -> str:
        """The word for it; `bad` when it is forgotten by now."""
        return self._ids.get(claim.received.id, "bad")


class BadMessages:
    """Decides. Any thread. `hide` makes a claim invisible for some seconds, `delete` deletes its message soon."""

    def __init__(
        self,
        directory: Directory,
        outbox: Outbox,
        options: Mapping[str, Any],
        *,
        hide: Callable[[Claim, float], None],
        delete: Callable[[Claim], None],
    ) -> None:
        self._directory = directory
        self._outbox = outbox
        self._dead_letter_queue: str | None = options.get("dead_letter_queue")
        self._hide = hide
        self._delete = delete
        self._known = Remembered()

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._known

    def reject(self, rejection: Rejection, claim: Claim) -> None:
        """To the dead letters: by the queue's redrive policy, else to the option's queue, else out of sight."""
        traits, backoff = claim.queue.traits, claim.queue.backoff
        if rejection.reason == _FAILED and is_listed(claim):
            runs = claim.attempts + claim.received.receives
            wait_s = backoff.wait_s(runs)
            logs.say(
                logger,
                logging.INFO,
                log_events.BACKOFF,
                "{claim} has failed for the {runs}. time: again in {wait_s:g} s",
                claim=named(claim),
                runs=runs,
                wait_s=wait_s,
            )
            self._hide(claim, wait_s)
        elif traits.max_receives:
            logs.say(
                logger,
                logging.ERROR,
                log_events.LEFT_TO_REDRIVE,
                "{claim} is left to the redrive policy of its queue (receive {receives} of {most}): {reason}",
                claim=named(claim),
                receives=claim.received.receives,
                most=traits.max_receives,
                reason=rejection.reason,
            )
            if rejection.reason != _FAILED:
                self._known.note(claim, rejection.reason)
            self._hide(claim, 0)
        elif self._dead_letter_queue:
            self._bury(claim, rejection)
        else:
            self._known.note(claim, rejection.reason)
            self._put_out_of_sight(claim, rejection.reason)

    def dismiss(self, claim: Claim) -> None:
        """It is known to be bad: back to its redrive policy, ever later, or out of sight again."""
        rounds = claim.received.receives
        if claim.queue.traits.max_receives:
            self._hide(claim, 0.0 if rounds < REFRESH_AT else min(rounds, 60))
        else:
            self._put_out_of_sight(claim, self._known.why(claim))

    def _bury(self, claim: Claim, rejection: Rejection) -> None:
        claim.is_settling = True
        try:
            queue = self._directory.find(str(self._dead_letter_queue))
        except QWorkerError as error:
            logs.say(
                logger,
                logging.ERROR,
                log_events.DEAD_HIDDEN,
                "{error}; {claim} is hidden instead",
                error=error,
                claim=named(claim),
            )
            self._hide(claim, HIDDEN_S)
            return
        entry = letter(claim, rejection, is_fifo=queue.is_fifo)

        def sent(result: Result) -> None:
            if result is None:
                self._delete(claim)
            else:
                logs.say(
                    logger,
                    logging.ERROR,
                    log_events.DEAD_HIDDEN,
                    "{claim} could not be sent to {queue} ({error}): it is hidden",
                    claim=named(claim),
                    queue=queue.name,
                    error=result,
                )
                self._hide(claim, HIDDEN_S)

        self._outbox.put([Op(SEND, queue, entry, sent, is_urgent=True)])

    def _put_out_of_sight(self, claim: Claim, why: str) -> None:
        logs.say(
            logger,
            logging.ERROR,
            log_events.DEAD_HIDDEN,
            "{claim} cannot run ({reason}): it is hidden for {hours} h at a time, because its queue has no "
            "redrive policy and no dead_letter_queue is set",
            claim=named(claim),
            reason=why,
            hours=HIDDEN_S // 3600,
        )
        self._hide(claim, HIDDEN_S)
