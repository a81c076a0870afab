"""Keeping claims: renewed for as long as they are held, given up when they have ended; twelve hours are announced.

Called by the adapter's verbs in the consumer thread, and by pollers for what a long poll has brought.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from ..core import log_events, logs
from ..core.clock import SystemClock
from ..core.errors import QWorkerError, TransportError
from .sqs_claims import Claim, Claims, visibility
from .sqs_errors import Trouble
from .sqs_ops import VISIBILITY, Op, Result
from .sqs_outbox import Outbox
from .sqs_url import MOST_CLAIM_S

logger = logging.getLogger("qworker.transports")

#: A claim is renewed when less of the lease than this is left: as much as the worker counts on (worker/link.py).
_CERTAIN_SHARE: Final = 0.8
#: The worker renews in thirds of a lease: what has less left when it is handed over might end before that.
_LEAST_SHARE: Final = 1 / 3
#: Said so long before a message's twelve hours end.
_NOTICE_S: Final = 600


class Renewals:
    """Renews. `lose` forgets a claim that has ended; `on_trouble` hears of errors on the way to SQS."""

    def __init__(
        self,
        claims: Claims,
        outbox: Outbox,
        lease_s: int,
        *,
        lose: Callable[[Claim], None],
        on_trouble: Callable[[QWorkerError], None],
    ) -> None:
        self._claims = claims
        self._outbox = outbox
        self._lease_s = lease_s
        self._lose = lose
        self._on_trouble = on_trouble
        self._boottime = SystemClock().boottime

    def extend(self) -> None:
        """Renew what has less than four fifths of its lease left; lose what has ended. Raises TransportError."""
        now = self._boottime()
        due = []
        for claim in self._claims.all():
            if claim.is_leaving:
                continue
            if claim.until <= now and not claim.is_settling:
                self._lose(claim)
            elif claim.until - now < self._lease_s * _CERTAIN_SHARE and self._seconds(claim, now):
                due.append(claim)
        for claim, result in zip(due, self._renew(due), strict=True):
            if result in (Trouble.GONE, Trouble.WRONG):
                if not claim.is_settling:
                    self._lose(claim)
            elif isinstance(result, QWorkerError):
                raise out_of_reach(result)
            elif result is not None:
                raise TransportError(f"SQS does not renew claims now ({result.value})")

    def lengthened(self, claims: list[Claim]) -> list[Claim]:
        """For the pollers: make what a long poll has brought ours for a whole lease; return what is."""
        results = self._renew(claims)
        for claim, result in zip(claims, results, strict=True):
            if isinstance(result, QWorkerError):
                self._on_trouble(result)
            elif result is not None:
                logger.debug("message %s was gone before it was ours (%s)", claim.received.id, result)
        return [claim for claim, result in zip(claims, results, strict=True) if result is None]

    def fresh(self, claims: list[Claim]) -> list[Claim]:
        """Those that may start: what has become old on its way through this process is renewed first, or lost."""
        now = self._boottime()
        old = [claim for claim in claims if claim.until - now < self._lease_s * _LEAST_SHARE]
        ended = [claim for claim in old if claim.until <= now]
        aging = [claim for claim in old if claim.until > now]
        kept = self.lengthened(aging) if aging else []
        lost = {*ended, *aging} - set(kept)
        for claim in lost:
            self._lose(claim)
        return [claim for claim in claims if claim not in lost] if lost else claims

    def _renew(self, claims: Sequence[Claim]) -> list[Result]:
        """Have each be ours for a lease from now on."""
        now = self._boottime()
        seconds = [self._seconds(claim, now) for claim in claims]
        ops = [Op(VISIBILITY, c.queue, visibility(c, s)) for c, s in zip(claims, seconds, strict=True)]
        results = self._outbox.ask(ops) if ops else []
        for at, (claim, lasts_s) in enumerate(zip(claims, seconds, strict=True)):
            if results[at] is Trouble.MISSING:  # of a queue that was deleted nobody else gets it
                results[at] = None
            if results[at] is None:
                claim.until = now + lasts_s
        return results

    def _seconds(self, claim: Claim, now: float) -> int:
        """How long it can be renewed; 0 when its twelve hours are over. Says so before."""
        left_s = int(MOST_CLAIM_S - (now - claim.got_at)) - 5
        if left_s < _NOTICE_S and not claim.is_told:
            claim.is_told = True
            logs.say(
                logger,
                logging.WARNING,
                log_events.CLAIM_AT_LIMIT,
                "message {claim} on {queue} has been held for almost 12 h, the most that SQS allows: in {left_s} "
                "s it is given to somebody else, and what runs here counts for nothing",
                claim=claim.received.id,
                queue=claim.queue.name,
                left_s=left_s,
            )
        return int(max(0, min(self._lease_s, left_s)))


def out_of_reach(error: QWorkerError) -> TransportError:
    """What a verb raises for an error that a thread has met: never one that ends the worker at once."""
    return error if isinstance(error, TransportError) else TransportError(str(error))
