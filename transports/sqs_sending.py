"""Publishing: envelopes become entries, the outbox sends them, and whoever publishes learns what became of them.

Called by the adapter's `publish`, in a producer or in a worker's consumer thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ..core import log_events, logs
from ..core.errors import ConfigError, MessageError, QWorkerError, TransportError
from .base import Envelope
from .sqs_errors import Trouble
from .sqs_ops import SEND, Op, Result
from .sqs_outbox import Outbox
from .sqs_payloads import Payloads
from .sqs_queues import DEFAULT_MAX_BYTES, Directory
from .sqs_wire import entry_of

logger = logging.getLogger("qworker.transports")


class Sending:
    """Publishes. `is_worker`: what cannot be sent follows a task that was acked before it ran, and has no caller."""

    def __init__(
        self, directory: Directory, outbox: Outbox, payloads: Payloads, *, is_plain: bool, is_worker: bool
    ) -> None:
        self._directory = directory
        self._outbox = outbox
        self._payloads = payloads
        self._is_plain = is_plain
        self._is_worker = is_worker

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Send, ten at a time. Raises MessageError (nothing is sent then), ConfigError, TransportError."""
        now = time.time()
        ops = [op for envelope in envelopes if (op := self._op(envelope, now)) is not None]
        self._judge(self._outbox.ask(ops) if ops else [])

    def _op(self, envelope: Envelope, now: float) -> Op | None:
        try:
            return self._made(envelope, now)
        except (MessageError, ConfigError) as error:
            if not self._is_worker:
                raise
            # Of a task that was acked before it ran: there is nobody whom an error could tell, and no message to keep.
            logs.say(
                logger,
                logging.ERROR,
                log_events.SUCCESSORS_LOST,
                "what follows a task with acks_late=False cannot be sent and is lost: {error}",
                error=error,
            )
            return None

    def _made(self, envelope: Envelope, now: float) -> Op:
        if envelope.unique:
            raise ConfigError("unique= is not possible on SQS: use a FIFO queue and MessageDeduplicationId instead")
        queue = self._directory.find(envelope.queue)
        most = queue.traits.max_bytes
        if len(envelope.raw) > DEFAULT_MAX_BYTES // 2 and not queue.has_traits:
            most = self._directory.traits(queue).max_bytes
        envelope = self._payloads.stowed(envelope, most)
        entry = entry_of(envelope, is_fifo=queue.is_fifo, now=now, most_bytes=most, plain=self._is_plain)
        return Op(SEND, queue, entry)

    def _judge(self, results: Sequence[Result]) -> None:
        failed = [result for result in results if result is not None]
        if self._is_worker and (refused := [one for one in failed if one in (Trouble.WRONG, Trouble.GONE)]):
            logs.say(
                logger,
                logging.ERROR,
                log_events.SUCCESSORS_LOST,
                "SQS refuses {count} messages that follow tasks with acks_late=False; they are lost",
                count=len(refused),
            )
            failed = [one for one in failed if one not in refused]
        if not failed:
            return
        first = failed[0]
        if isinstance(first, ConfigError):
            raise first
        text = str(first) if isinstance(first, QWorkerError) else f"SQS refuses them ({first.value})"
        error = TransportError(f"{len(failed)} of {len(results)} messages were not sent: {text}")
        error.nothing_sent = len(failed) == len(results) and all(
            isinstance(one, Trouble) or (isinstance(one, TransportError) and one.nothing_sent) for one in failed
        )
        raise error
