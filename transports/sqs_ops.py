"""One thing that is to be told to SQS: an entry of a request, what becomes of it, and what its refusal means.

Made by settling, renewing, publishing and the dead letters; carried by the outbox. Nothing here makes a request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..core.errors import QWorkerError, TransportError
from .sqs_errors import Trouble, trouble_of
from .sqs_queues import DEFAULT_MAX_BYTES, Queue
from .sqs_wire import OVERHEAD, weight_of

logger = logging.getLogger("qworker.transports")

DELETE: Final = "delete"
VISIBILITY: Final = "visibility"
SEND: Final = "send"
ACTIONS: Final = {
    DELETE: ("delete_message_batch", "deleting messages from"),
    VISIBILITY: ("change_message_visibility_batch", "renewing or giving back messages of"),
    SEND: ("send_message_batch", "sending messages to"),
}
#: SQS's limit for one request.
BATCH: Final = 10

#: How an operation ended: None = carried out.
Result = Trouble | QWorkerError | None


class Op:
    """One entry of a request to come. `done` is called once, in some thread, with a Result.

    `is_urgent`: do not wait long for company. `most_tries` 0 = try until the process ends. `until` says up to when
    (CLOCK_BOOTTIME) it makes sense: after the end of a claim an old receipt would meddle with another worker's message.
    """

    __slots__ = (
        "done",
        "entry",
        "is_alone",
        "is_urgent",
        "kind",
        "most_tries",
        "queue",
        "since",
        "tries",
        "until",
        "weight",
    )

    def __init__(
        self,
        kind: str,
        queue: Queue,
        entry: dict[str, Any],
        done: Callable[[Result], None] = lambda result: None,
        *,
        is_urgent: bool = False,
        most_tries: int = 0,
        until: Callable[[], float] | None = None,
    ) -> None:
        self.kind = kind
        self.queue = queue
        self.entry = entry
        self.done = done
        self.is_urgent = is_urgent
        self.most_tries = most_tries
        self.until = until
        self.tries = 0
        self.since = 0.0
        self.is_alone = False  # its company was refused as a whole: it is sent on its own
        self.weight = weight_of(entry) + OVERHEAD if kind == SEND else 0


def is_unsent(result: Result) -> bool:
    """Whether this end says that SQS has certainly not carried it out."""
    return isinstance(result, TransportError) and result.nothing_sent


def fits_one_request(ops: Sequence[Op]) -> bool:
    """Whether these can go together."""
    if not 0 < len(ops) <= BATCH or len({(op.kind, op.queue) for op in ops}) > 1:
        return False
    return sum(op.weight for op in ops) <= DEFAULT_MAX_BYTES or len(ops) == 1


def trouble_in(failed: dict[str, Any] | None) -> Trouble:
    """What an entry's own refusal means; an entry that the answer does not mention has to be sent again."""
    if failed is None:
        return Trouble.BUSY
    trouble = trouble_of(str(failed.get("Code", "")), 400 if failed.get("SenderFault", True) else 500)
    logger.debug("an entry was refused: %s %s", failed.get("Code"), failed.get("Message"))
    return trouble
