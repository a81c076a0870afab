"""The SQS adapter: the Transport's verbs for Amazon SQS. Opened by `open_transport`; ARCHITECTURE.md has the whole.

The consumer thread calls the verbs, and none of them waits for SQS except `connect`, `extend`, `publish`, `depths` and
the acks that somebody waits for. Receiving (sqs_polls) and settling (the outbox) have threads of their own.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from ..core import log_events, logs
from ..core.clock import SystemClock
from ..core.errors import ConfigError, QWorkerError, TransportError
from ..core.urls import redact
from .base import Ack, Capabilities, DeadLetter, Delivery, Envelope, Maintenance, Rejection, Settled
from .sqs_claims import Claim, Claims
from .sqs_clients import Clients
from .sqs_dead import DeadLetters
from .sqs_errors import SqsRefusal, Trouble
from .sqs_looks import Looks
from .sqs_ops import BATCH
from .sqs_outbox import Outbox
from .sqs_payloads import Payloads
from .sqs_polls import Polls
from .sqs_queues import Directory
from .sqs_renewals import Renewals, out_of_reach
from .sqs_sending import Sending
from .sqs_settling import Settling
from .sqs_url import MOST_CLAIM_S, read_sqs_options, read_url
from .sqs_verdicts import Verdicts

logger = logging.getLogger("qworker.transports")

#: What cannot be told to SQS, and waits: above this nothing more is fetched.
_MOST_PENDING: Final = 1000
#: A long poll under way at the end is waited for so long.
_GRACE_S: Final = 0.5
#: And one that may hold messages for a whole lease, until it has given them back.
_LAST_POLLS_S: Final = 2.5
#: And all this together with what still waits in the outbox.
_LAST_WORDS_S: Final = 4.0
#: And payloads in S3 whose messages are gone.
_LAST_PAYLOADS_S: Final = 1.0


class SqsTransport:
    """SQS as a broker. One thread at a time calls the verbs. `queues` are those that a worker will consume."""

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        *,
        owner: str = "",
        lease_s: float = 30.0,
        queues: Sequence[str] = (),
    ) -> None:
        found = read_sqs_options(options)
        self.capabilities = Capabilities(
            max_batch=10_000,
            native_priority=False,
            fetch_size=BATCH,
            max_claim_s=MOST_CLAIM_S,
            knows_holders=False,
        )
        self._shown = redact(url)
        self._owner = owner
        self._lease_s = max(1, math.ceil(found.get("lease_timeout", lease_s)))
        self._is_plain = not found.get("sqs_base64_encoding", True)
        self._names = tuple(dict.fromkeys(queues))
        self._dead_letter_queue: str | None = found.get("dead_letter_queue")
        self._boottime = SystemClock().boottime
        self._trouble: TransportError | None = None
        self._has_described = False
        self._clients = Clients(found, polled=len(self._names))
        account = read_url(url, found)
        self._directory = Directory(self._clients, account, found)
        self._claims = Claims()
        self._outbox = Outbox(self._clients, self._note_trouble, patience_s=3 * found.get("socket_timeout", 5.0))
        self._payloads = Payloads(
            found, lambda: self._clients.storage(account), lambda claims, due: self._settling.give_back(claims, due)
        )
        self._settling = Settling(
            self._directory,
            self._claims,
            self._outbox,
            found,
            self._payloads,
            ready=lambda claims: self._polls.put(claims, front=True),
            again=lambda claim: self._polls.put([claim], front=True),
        )
        self._verdicts = Verdicts(self._claims, self._settling, self._outbox, lose=self._lose)
        self._renewals = Renewals(
            self._claims, self._outbox, self._lease_s, lose=self._lose, on_trouble=self._note_trouble
        )
        self._sending = Sending(
            self._directory, self._outbox, self._payloads, is_plain=self._is_plain, is_worker=bool(owner)
        )
        self._polls = Polls(
            self._clients,
            self._claims,
            found,
            lease_s=self._lease_s,
            adopt=self._settling.adopt,
            release=self._settling.give_back,
            lengthen=self._renewals.lengthened,
            unpack=self._payloads.unpacked,
            on_trouble=self._note_trouble,
        )
        self._looks = Looks(
            self._clients,
            self._directory,
            self._polls if owner else None,
            patience_s=found.get("wait_time_seconds", 10) + 5,
        )

    # ---- connecting ----

    def connect(self) -> None:
        """A worker looks up its queues; a producer asks nothing before it publishes.

        Raises ConfigError for a queue that does not exist, credentials that are refused, or a missing package.
        """
        _need_botocore()
        trouble, self._trouble = self._trouble, None
        if isinstance(trouble, SqsRefusal) and trouble.trouble is Trouble.REFUSED:
            if not self._polls.has_polled:
                raise ConfigError(str(trouble))  # it has never worked, and waiting gives nobody a right
            self._clients.renew()
        if not self._owner:
            return
        if self._has_described:
            self._looks.knock(self._names)
        else:
            self._looks.introduce([*self._names, *filter(None, [self._dead_letter_queue])])
            self._payloads.check()
            self._has_described = True
            # What botocore has read of its service models stays: no later collection need look at it. A collection now
            # would free some thousand small objects, for 30 ms of the start.
            gc.freeze()
        self._polls.watch([self._directory.find(name) for name in self._names])
        self._polls.retry_now()

    def wake_fd(self) -> int | None:
        """Readable when the pollers have brought something."""
        return self._polls.fileno()

    def drain_wake(self) -> None:
        """Forget that; raises TransportError when the pollers cannot reach SQS."""
        self._polls.drain()
        self._raise_trouble()

    # ---- producing ----

    def publish(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Send, ten at a time, several requests side by side; those of a FIFO queue in their order.

        Raises MessageError for one that is too large (nothing is sent then), TransportError when not all were sent.
        """
        _need_botocore()
        self._sending.publish(envelopes)
        return []

    # ---- reserving ----

    def reserve(self, queues: Sequence[str], limit: int, *, arm: bool = False) -> list[Delivery]:
        """Take what the pollers have brought; the rest of `limit` is polled for from now on.

        With `limit` 0 no more is polled for, and what came unasked is given back.
        """
        self._raise_trouble()
        if limit <= 0:
            self.stop_fetching()
            return []
        wanted = tuple(dict.fromkeys(queues))
        if not wanted or len(self._outbox) > _MOST_PENDING:
            return []
        if wanted != self._names:
            self._polls.watch([self._directory.find(name) for name in wanted])
            self._names = wanted
        return [claim.delivery() for claim in self._renewals.fresh(self._polls.take(wanted, limit))]

    def stop_fetching(self) -> None:
        """Begin no poll until the next `reserve`; give back what nobody has taken."""
        self._settling.give_back(self._polls.stop())
        self._settling.give_back(self._claims.behind())

    def extend(self, deliveries: Sequence[Delivery]) -> Settled:
        """Renew every claim that has less than four fifths of its lease left, whoever has the message."""
        self._raise_trouble()
        self._renewals.extend()
        lost = [d.tag for d in deliveries if self._claims.get(d.tag) is None]
        return Settled(len(deliveries) - len(lost), lost)

    def _lose(self, claim: Claim) -> None:
        self._polls.forget(claim)
        self._settling.give_back(self._claims.give_up(claim))

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Nothing: SQS counts receives, and that has to do."""

    def mark_stopping(self) -> None:
        """Nothing: there are no marks."""

    def recall(self, known: Collection[str]) -> list[Delivery]:
        """Nothing: what a lost answer has taken comes back by itself when its claim ends."""
        return []

    # ---- settling ----

    def ack(self, acks: Sequence[Ack]) -> Settled:
        """Have it deleted, after its successors have been sent; with `at_once`, wait until it is."""
        return self._verdicts.ack(acks)

    def requeue(self, deliveries: Sequence[Delivery], *, crashed: bool = False, due: float | None = None) -> Settled:
        """Give back. There is no front of a queue, and no order but a FIFO group's."""
        return self._verdicts.requeue(deliveries, crashed=crashed, due=due)

    def reject(self, rejections: Sequence[Rejection]) -> Settled:
        """By the queue's redrive policy, else to `dead_letter_queue`, else out of sight."""
        return self._verdicts.reject(rejections)

    # ---- looking around ----

    def discard_delayed(self, task_ids: Sequence[str]) -> list[str]:
        """Raise NotImplementedError: SQS delivers, it does not look up."""
        raise NotImplementedError(
            "SQS cannot find a delayed message, so it cannot be revoked; give tasks expires=, or let them look whether "
            "they are still wanted"
        )

    def maintain(self) -> Maintenance:
        """Nothing: SQS moves what is due, and gives back what nobody renews."""
        self._raise_trouble()
        return Maintenance()

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """About how many wait. A worker whose poll has just come back with nothing knows without asking."""
        _need_botocore()
        return self._looks.depths(queues)

    def oldest(self, queues: Sequence[str]) -> dict[str, float]:
        """Nobody can tell: to see a message is to take it."""
        return {}

    def purge(self, queues: Sequence[str]) -> int:
        """Delete everything that a queue has, delayed and in flight included; return about how many waited.

        SQS allows it once a minute.
        """
        _need_botocore()
        return self._looks.purge(queues)

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Look through `dead_letter_queue`: its messages are out of sight for some seconds."""
        return self._dead().look(limit)

    def requeue_dead(self, tokens: Sequence[str]) -> int:
        """Send to the queue it came from, then delete."""
        return self._dead().requeue(tokens)

    def purge_dead(self, tokens: Sequence[str]) -> int:
        """Delete."""
        return self._dead().purge(tokens)

    def _dead(self) -> DeadLetters:
        _need_botocore()
        if not self._dead_letter_queue:
            raise ConfigError(
                "SQS itself has no dead-letter store: name a queue with broker_transport_options["
                "'dead_letter_queue'], or look into the one that your queue's redrive policy names"
            )
        return DeadLetters(self._clients, self._directory, self._outbox, self._directory.find(self._dead_letter_queue))

    def warnings(self) -> list[str]:
        """What becomes of bad messages, where nothing says it."""
        _need_botocore()
        return [] if self._dead_letter_queue else self._looks.warnings(self._names)

    # ---- the end ----

    def close(self) -> None:
        """Give back what nobody has taken, tell SQS what is still to be told, and leave. Never raises."""
        until = time.monotonic() + _LAST_WORDS_S
        try:
            if self._owner:
                self.stop_fetching()
            self._polls.close(_GRACE_S, _LAST_POLLS_S)
            if len(self._outbox) and not self._outbox.flush(until - time.monotonic()):
                logs.say(
                    logger,
                    logging.ERROR,
                    log_events.OUTCOMES_UNTOLD,
                    "{count} things could not be told to SQS: what they are about may run again",
                    count=len(self._outbox),
                )
            self._payloads.close(_LAST_PAYLOADS_S)
            self._outbox.close()
            self._clients.close()
        except Exception:  # close() never raises, and claims end by themselves
            logger.debug("leaving SQS failed", exc_info=True)

    def _note_trouble(self, error: QWorkerError) -> None:
        """In any thread: the next verb tells the worker, which then connects anew."""
        if self._trouble is None:
            self._trouble = out_of_reach(error)
            self._polls.wake()

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise self._trouble


def _need_botocore() -> None:
    from importlib.util import find_spec

    if find_spec("botocore") is None:
        raise ConfigError('sqs:// needs boto3: pip install "qworker[sqs]"')
