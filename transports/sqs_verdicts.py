"""What the worker has decided about deliveries, put to their claims: which are ours still, and which is waited for.

The adapter's settling verbs, called by it in the consumer thread. How SQS is told is up to sqs_settling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core.errors import TransportError
from .base import Ack, Delivery, Rejection, Settled
from .sqs_claims import Claim, Claims
from .sqs_errors import Trouble
from .sqs_outbox import Outbox
from .sqs_settling import Settling


class Verdicts:
    """One thread. `lose` forgets a claim that has ended."""

    def __init__(self, claims: Claims, settling: Settling, outbox: Outbox, *, lose: Callable[[Claim], None]) -> None:
        self._claims = claims
        self._settling = settling
        self._outbox = outbox
        self._lose = lose

    def ack(self, acks: Sequence[Ack]) -> Settled:
        """Have it deleted, after its successors have been sent; with `at_once`, wait until it is.

        Raises TransportError.
        """
        at_once, later, lost = [], [], []
        for ack in acks:  # all that can raise comes first: after an error the caller repeats the whole
            claim = self._claims.get(ack.delivery.tag)
            if claim is None:
                lost.append(ack.delivery.tag)
            elif ack.at_once and not ack.successors:
                at_once.append(claim)
            else:
                later.append((claim, self._settling.prepared(claim, ack.successors)))
        for claim, sends in later:
            self._settling.ack(claim, sends)
        lost += self._ack_now(at_once)
        return Settled(len(acks) - len(lost), lost)

    def _ack_now(self, claims: Sequence[Claim]) -> list[str]:
        if not claims:
            return []
        lost = []
        results = self._outbox.ask([self._settling.delete_op(claim) for claim in claims])
        for claim, result in zip(claims, results, strict=True):
            if result is None:
                self._settling.deleted(claim)
            elif result is Trouble.GONE:
                lost.append(claim.tag)
                self._lose(claim)
            else:
                claim.is_settling = False
                raise TransportError(f"the message of a task that is about to start was not deleted: {result}")
        return lost

    def requeue(self, deliveries: Sequence[Delivery], *, crashed: bool, due: float | None) -> Settled:
        """Give back, or run again what its child did not survive."""
        claims, lost = self._held(deliveries)
        if crashed:
            for claim in claims:
                self._settling.crashed(claim, due)
        else:
            self._settling.give_back(claims, due)
        return Settled(len(claims), lost)

    def reject(self, rejections: Sequence[Rejection]) -> Settled:
        """To where bad messages go."""
        lost = []
        for rejection in rejections:
            claim = self._claims.get(rejection.delivery.tag)
            if claim is None:
                lost.append(rejection.delivery.tag)
            else:
                self._settling.reject(rejection, claim)
        return Settled(len(rejections) - len(lost), lost)

    def _held(self, deliveries: Sequence[Delivery]) -> tuple[list[Claim], list[str]]:
        found = [(delivery.tag, self._claims.get(delivery.tag)) for delivery in deliveries]
        return [claim for _, claim in found if claim], [tag for tag, claim in found if claim is None]
