"""What is sent of a message that we hold: the message anew with our counters, its dead letter, its name for the log.

Called by settling and for bad messages (sqs_bad.py). Pure functions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from .base import Rejection
from .sqs_claims import Claim
from .sqs_wire import ATTEMPTS, CRASHES, MOST_ATTRIBUTES, Attributes, Entry, delay_s, number, text, weight_of

#: A message that has been received so often is sent anew when it is given back, so that its count starts again.
REFRESH_AT: Final = 5
_MOST_DETAILS: Final = 4096


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


def is_listed(claim: Claim) -> bool:
    """Whether this queue's backoff policy is for this message's task."""
    tasks = claim.queue.backoff.tasks
    return bool(tasks) and task_of(claim.received.raw) in tasks


def named(claim: Claim) -> str:
    """For the log: the task and its id, if the message says so."""
    task, task_id = task_of(claim.received.raw), id_of(claim.received.raw)
    name = f"Task {task}[{task_id}]" if task_id else f"message {claim.received.id}"
    return f"{name} on {claim.queue.name}"


def anew(claim: Claim, wait_s: float) -> Entry:
    """The same bytes as a new message that bears our counters."""
    received = claim.received
    # Of a listed task every receive before this one was a run that failed; of others nobody wants to know.
    attempts = claim.attempts + (received.receives - 1 if is_listed(claim) else 0)
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
    return entry


def _kept(attributes: Attributes) -> Attributes:
    """A producer's own attributes, and how the body is written; there is room for our two counters."""
    kept = {name: value for name, value in attributes.items() if name not in (CRASHES, ATTEMPTS)}
    return dict(list(kept.items())[: MOST_ATTRIBUTES - 2])


def letter(claim: Claim, rejection: Rejection, *, is_fifo: bool) -> Entry:
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
