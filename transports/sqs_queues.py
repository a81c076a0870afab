"""Queues of SQS: names, URLs, and what the queue itself says: type, time-outs, redrive policy, sizes. Any thread.

Used by every part of the adapter that has to do with a queue. A queue is looked up once; it is created only when
`task_create_missing_queues` says so.
"""

from __future__ import annotations

import json
import logging
import string
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..core import log_events, logs
from ..core.errors import ConfigError
from .sqs_clients import Clients
from .sqs_errors import SqsRefusal, Trouble
from .sqs_url import Account, Backoff, Predefined, predefined

logger = logging.getLogger("qworker.transports")

FIFO: Final = ".fifo"
#: As kombu's: a full stop becomes a hyphen, other punctuation an underscore.
_REPLACED: Final = {ord(c): "_" for c in string.punctuation if c not in "-_."} | {ord("."): "-"}
_MOST_NAME: Final = 80
#: kombu's, for queues that are created.
_VISIBILITY_S: Final = 1800
#: What a queue is taken to allow while it does not say: the lowest limit there has been.
DEFAULT_MAX_BYTES: Final = 262144
_FOUR_DAYS_S: Final = 345600


@dataclass(frozen=True, slots=True)
class Traits:
    """What a queue says of itself. `max_receives` 0 = no redrive policy."""

    visibility_s: int = 30
    max_bytes: int = DEFAULT_MAX_BYTES
    retention_s: int = _FOUR_DAYS_S
    redrive_to: str = ""
    max_receives: int = 0


@dataclass(eq=False, slots=True)
class Queue:
    """One queue. Compared and hashed by identity: the directory makes one object for each."""

    name: str
    url: str
    account: Account = field(repr=False)
    is_fifo: bool
    backoff: Backoff
    traits: Traits = field(default_factory=Traits)
    has_traits: bool = False


def sqs_name(name: str, prefix: str = "") -> str:
    """Return the name that a queue has on SQS."""
    whole = prefix + name
    if whole.endswith(FIFO):
        return whole.removesuffix(FIFO).translate(_REPLACED) + FIFO
    return whole.translate(_REPLACED)


class Directory:
    """Finds queues by name and remembers them. Raises ConfigError for a queue that does not exist."""

    def __init__(self, clients: Clients, account: Account, options: Mapping[str, Any]) -> None:
        self._clients = clients
        self._account = account
        self._options = options
        self._prefix: str = options.get("queue_name_prefix", "")
        self._predefined: Mapping[str, Predefined] = predefined(options.get("predefined_queues"), account)
        self._known: dict[str, Queue] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> Queue:
        """Return the queue `name`. Raises ConfigError when there is none, TransportError when nobody answers."""
        queue = self._known.get(name)
        if queue is None:
            with self._lock:
                queue = self._known.get(name) or self._look_up(name)
                self._known[name] = queue
        return queue

    def traits(self, queue: Queue) -> Traits:
        """Ask the queue what it is, once. Raises TransportError or ConfigError."""
        if not queue.has_traits:
            queue.traits = self._ask(queue)
            queue.has_traits = True
        return queue.traits

    def region(self, queue: Queue) -> str:
        """Where it is."""
        return self._clients.region_of(queue.account)

    def _look_up(self, name: str) -> Queue:
        if self._predefined:
            given = self._predefined.get(name) or self._predefined.get(sqs_name(name, self._prefix))
            if given is None:
                known = ", ".join(self._predefined)
                raise ConfigError(f"the queue {name!r} is not among the predefined_queues ({known})")
            return Queue(name, given.url, given.account, given.url.endswith(FIFO), given.backoff)
        full = _checked(name, sqs_name(name, self._prefix))
        url = self._url_of(name, full)
        return Queue(name, url, self._account, full.endswith(FIFO), Backoff())

    def _url_of(self, name: str, full: str) -> str:
        region = self._clients.region_of(self._account)
        doing = f"looking for the queue {full!r} in {region}"
        try:
            found = self._clients.call(self._account, "get_queue_url", doing, {"QueueName": full})
        except SqsRefusal as refusal:
            if refusal.trouble is not Trouble.MISSING:
                raise _lasting(refusal) from refusal
            if self._options.get("create_missing_queues"):
                return self._create(full)
            called = f"{full!r} (the queue {name!r})" if full != name else repr(name)
            raise ConfigError(
                f"there is no SQS queue {called} in the region {region}: create it, correct region, prefix or "
                "credentials, or set task_create_missing_queues"
            ) from refusal
        return str(found["QueueUrl"])

    def _create(self, full: str) -> str:
        attributes = {"VisibilityTimeout": str(int(self._options.get("visibility_timeout", _VISIBILITY_S)))}
        if full.endswith(FIFO):
            attributes["FifoQueue"] = "true"
        attributes.update({k: str(v) for k, v in self._options.get("sqs-creation-attributes", {}).items()})
        request: dict[str, Any] = {"QueueName": full, "Attributes": attributes}
        if tags := self._options.get("queue_tags"):
            request["tags"] = dict(tags)
        found = self._clients.call(self._account, "create_queue", f"creating the queue {full!r}", request)
        logs.say(logger, logging.INFO, log_events.QUEUE_CREATED, "created the SQS queue {queue}", queue=full)
        return str(found["QueueUrl"])

    def _ask(self, queue: Queue) -> Traits:
        doing = f"asking what the queue {queue.name!r} in {self.region(queue)} is"
        try:
            found = self._clients.call(
                queue.account, "get_queue_attributes", doing, {"QueueUrl": queue.url, "AttributeNames": ["All"]}
            ).get("Attributes", {})
        except SqsRefusal as refusal:
            if refusal.trouble is Trouble.MISSING:
                raise ConfigError(
                    f"there is no SQS queue {queue.name!r} at {queue.url} in the region {self.region(queue)}"
                ) from refusal
            if "AccessDenied" not in refusal.code:
                raise _lasting(refusal) from refusal
            logs.say(
                logger,
                logging.WARNING,
                log_events.QUEUE_UNKNOWN,
                "{error}; its limits and its redrive policy are not known (sqs:GetQueueAttributes)",
                error=refusal,
            )
            return Traits()
        to, most = _redrive(found.get("RedrivePolicy", ""))
        return Traits(
            int(found.get("VisibilityTimeout", 30)),
            int(found.get("MaximumMessageSize", DEFAULT_MAX_BYTES)),
            int(found.get("MessageRetentionPeriod", _FOUR_DAYS_S)),
            to,
            most,
        )


def describe(queue: Queue, region: str) -> str:
    """One line for the log."""
    traits = queue.traits
    redrive = (
        f"dead letters to {traits.redrive_to.rpartition(':')[2]} after {traits.max_receives} receives"
        if traits.max_receives
        else "no redrive policy"
    )
    kind = "FIFO" if queue.is_fifo else "standard"
    return f"queue {queue.name}: {kind}, {region}, visibility timeout {traits.visibility_s} s, {redrive}"


def _redrive(policy: str) -> tuple[str, int]:
    try:
        found = json.loads(policy)
        return str(found["deadLetterTargetArn"]), int(found["maxReceiveCount"])
    except (ValueError, LookupError, TypeError):
        return "", 0


def _checked(name: str, full: str) -> str:
    bare = full.removesuffix(FIFO)
    if not 0 < len(full) <= _MOST_NAME or not bare.isascii() or not all(c.isalnum() or c in "-_" for c in bare):
        raise ConfigError(
            f"the queue {name!r} would be {full!r} on SQS, which allows 1 to {_MOST_NAME} letters, digits, - and _"
        )
    return full


def _lasting(refusal: SqsRefusal) -> SqsRefusal | ConfigError:
    """Refused credentials do not get better by waiting."""
    return ConfigError(str(refusal)) if refusal.trouble is Trouble.REFUSED else refusal
