"""One queue as the pollers see it: what is under way and what lies in the buffer, what its answers say, one request.

Used by sqs_polls alone, which holds its lock around everything here but `receive`.
"""

from __future__ import annotations

import logging
import math
import random
import uuid
from collections import deque
from typing import Any, Final

from ..core import log_events, logs
from ..core.clock import SystemClock
from ..core.errors import QWorkerError
from .sqs_claims import Claim
from .sqs_clients import Clients
from .sqs_errors import SqsRefusal, Trouble
from .sqs_queues import Queue
from .sqs_wire import read

logger = logging.getLogger("qworker.transports")

#: A long poll that has waited for so long shows that there is nothing.
PATIENT_S: Final = 1.0
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 10.0
#: Throttled so often in a row, a queue is worth a word; and whatever ails it, once in so many failures.
_BUSY_TOO_LONG: Final = 5
_SAY_AGAIN: Final = 60
_SYSTEM_ATTRIBUTES: Final = ("ApproximateReceiveCount", "SentTimestamp", "MessageGroupId")
_rng = random.Random()


class Lane:
    """One queue. Guarded by the Polls' lock."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.buffer: deque[Claim] = deque()
        self.polls = 0  # under way
        self.asked = 0  # for so many messages in all, the long poll not counted
        self.awaited = 0  # what the long poll has asked for
        self.is_busy = False
        self.is_active = True
        self.next_at = 0.0
        self.failures = 0  # in a row
        self.empty_at = -1e9  # when a poll last came back with nothing
        self.waits_since = math.inf  # when the long poll that is under way began
        self.lost_attempts: deque[str] = deque()  # FIFO: what their lost answers have taken can be asked for again

    def begin(self, ask: int, now: float, *, is_long: bool, wait_s: float) -> None:
        """A poll for so many begins."""
        self.polls += 1
        if not is_long:
            self.asked += ask
            return
        self.awaited += ask
        if wait_s > PATIENT_S:
            self.waits_since = now

    def end(self, ask: int, *, is_long: bool) -> None:
        """It is over, and what it has brought is about to be in the buffer."""
        self.polls -= 1
        if is_long:
            self.awaited -= ask
            self.waits_since = math.inf
        else:
            self.asked -= ask

    def answered(self, ask: int, got: int, now: float, pause_s: float) -> None:
        """What an answer says about the queue: busy, or empty."""
        if self.failures >= _BUSY_TOO_LONG:
            logs.say(
                logger, logging.INFO, log_events.QUEUE_BACK, "messages come from {queue} again", queue=self.queue.name
            )
        self.failures = 0
        self.is_busy = got >= ask
        if not got:
            self.empty_at = now
            self.next_at = now + pause_s if self.polls == 0 else self.next_at

    def failed(self, now: float) -> None:
        """It is left alone for a while, ever longer."""
        self.is_busy = False
        self.failures += 1
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(self.failures - 1, 10))
        self.next_at = now + wait_s * _rng.uniform(0.5, 1.0)

    def complain(self, refusal: SqsRefusal) -> None:
        """Say what ails this queue while others may be well; not each time."""
        is_busy = refusal.trouble is Trouble.BUSY
        if self.failures == (_BUSY_TOO_LONG if is_busy else 1) or self.failures % _SAY_AGAIN == 0:
            level = logging.WARNING if is_busy else logging.ERROR
            logs.say(
                logger,
                level,
                log_events.QUEUE_REFUSED,
                "{error} ({failures} times in a row; it is tried again)",
                error=refusal,
                failures=self.failures,
            )

    def has_heard(self, now: float, within_s: float) -> bool:
        """Whether the queue is known to be empty: a poll has come back so lately, or waits for something to come."""
        return now - self.empty_at <= within_s or PATIENT_S <= now - self.waits_since <= within_s


_boottime = SystemClock().boottime


def receive(clients: Clients, lane: Lane, ask: int, *, wait_s: int, visible_s: int, is_long: bool) -> list[Claim]:
    """One request, without the lock. Raises TransportError or ConfigError."""
    request: dict[str, Any] = {
        "QueueUrl": lane.queue.url,
        "MaxNumberOfMessages": ask,
        "WaitTimeSeconds": wait_s if is_long else 0,
        "VisibilityTimeout": visible_s,
        "MessageSystemAttributeNames": list(_SYSTEM_ATTRIBUTES),
        "MessageAttributeNames": ["All"],
    }
    attempt = _attempt(lane) if lane.queue.is_fifo else ""
    if attempt:
        request["ReceiveRequestAttemptId"] = attempt
    sent_at = _boottime()
    try:
        doing = f"receiving from {lane.queue.name}"
        answer = clients.call(lane.queue.account, "receive_message", doing, request, polls=True)
    except QWorkerError as error:
        if attempt and not getattr(error, "nothing_sent", True):
            lane.lost_attempts.append(attempt)
        raise
    # Of a long poll nobody knows when its claims have begun: they count when they have been lengthened.
    until = sent_at if is_long else sent_at + visible_s
    return [Claim(lane.queue, read(message), sent_at, until) for message in answer.get("Messages") or ()]


def _attempt(lane: Lane) -> str:
    """An id of this poll alone: two that bear the same at the same time would get the same messages."""
    try:
        return lane.lost_attempts.popleft()
    except IndexError:
        return str(uuid.uuid4())
