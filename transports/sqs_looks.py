"""Looking at queues: what they are, about how many messages wait, whether anybody answers at all, and emptying them.

Called by the adapter. A worker that has no right to look (sqs:GetQueueAttributes) works all the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from ..core import log_events, logs
from ..core.errors import ConfigError
from .sqs_clients import Clients
from .sqs_errors import SqsRefusal, Trouble
from .sqs_polls import Polls
from .sqs_queues import Directory, Queue, describe

logger = logging.getLogger("qworker.transports")

#: An approximate count is asked for once a second at most.
_DEPTH_S: Final = 1.0


class Looks:
    """One thread. `polls` are a worker's, which know of empty queues; after `patience_s` a poll has come back."""

    def __init__(self, clients: Clients, directory: Directory, polls: Polls | None, *, patience_s: float) -> None:
        self._clients = clients
        self._directory = directory
        self._polls = polls
        self._patience_s = patience_s
        self._known: dict[str, tuple[float, int]] = {}

    def introduce(self, names: Sequence[str]) -> None:
        """Find the queues and log what each is. Raises ConfigError that names all that are missing, TransportError."""
        problems: list[str] = []
        for name in names:
            try:
                queue = self._directory.find(name)
                self._directory.traits(queue)
                logs.say(
                    logger,
                    logging.INFO,
                    log_events.QUEUE_FOUND,
                    "{queue}",
                    queue=describe(queue, self._directory.region(queue)),
                )
            except ConfigError as problem:
                problems += problem.problems
            except SqsRefusal as refusal:
                if refusal.trouble is not Trouble.REFUSED:
                    raise
                problems.append(str(refusal))  # waiting gives nobody a right
        if problems:
            raise ConfigError(*dict.fromkeys(problems))

    def knock(self, names: Sequence[str]) -> None:
        """Return if SQS answers for one of these queues: another one may have been deleted. Raises TransportError."""
        refusals = []
        for name in names:
            try:
                self._depth(self._directory.find(name))
                return
            except SqsRefusal as refusal:
                if "AccessDenied" in refusal.code:  # to look; it may receive all the same
                    return
                refusals.append(refusal)
        if refusals:
            if refusals[0].trouble is Trouble.REFUSED:
                self._clients.renew()
            raise refusals[0]

    def depths(self, names: Sequence[str]) -> dict[str, int]:
        """About how many wait. Raises TransportError, ConfigError."""
        return {name: self._known_depth(name) for name in names}

    def _known_depth(self, name: str) -> int:
        if self._polls is None:
            return self._depth(self._directory.find(name))
        if self._polls.has_heard(name, self._patience_s):
            return 0
        asked_at, depth = self._known.get(name, (-_DEPTH_S, 0))
        if time.monotonic() - asked_at >= _DEPTH_S:
            depth = self._depth_or_guess(self._polls, self._directory.find(name))
            self._known[name] = (time.monotonic(), depth)
        return depth

    def _depth_or_guess(self, polls: Polls, queue: Queue) -> int:
        try:
            return self._depth(queue)
        except SqsRefusal as refusal:
            if polls.is_alone_in_trouble(queue.name):
                return 0  # its own trouble, which the pollers tell
            if "AccessDenied" in refusal.code:
                return 1  # no poll has come back for longer than one takes: something is wrong, or something waits
            raise

    def _depth(self, queue: Queue) -> int:
        wanted = "ApproximateNumberOfMessages"
        request = {"QueueUrl": queue.url, "AttributeNames": [wanted]}
        answer = self._clients.call(queue.account, "get_queue_attributes", f"looking at {queue.name}", request)
        return int(answer.get("Attributes", {}).get(wanted, 0))

    def purge(self, names: Sequence[str]) -> int:
        """Empty the queues; return about how many waited. Raises TransportError, ConfigError."""
        total = 0
        for name in dict.fromkeys(names):
            queue = self._directory.find(name)
            total += self._depth(queue)
            self._clients.call(queue.account, "purge_queue", f"purging {name}", {"QueueUrl": queue.url})
        return total

    def warnings(self, names: Sequence[str]) -> list[str]:
        """What becomes of bad messages on queues without a redrive policy."""
        found = []
        for name in names:
            traits = self._directory.traits(self._directory.find(name))
            if not traits.max_receives:
                found.append(
                    f"the queue {name!r} has no redrive policy, and no dead_letter_queue is set: bad messages are "
                    f"hidden again and again, and lost after {traits.retention_s // 86400} days, when SQS forgets them"
                )
        return found
