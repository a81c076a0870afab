"""The dead letters in `dead_letter_queue`: listed by receiving them all for some seconds, and giving them back.

Called by the adapter for `qworker dead`. SQS cannot look without taking: two who look at the same time each see a part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ..core.errors import ConfigError
from .base import DeadLetter
from .sqs_clients import Clients
from .sqs_ops import BATCH, DELETE, SEND, VISIBILITY, Op
from .sqs_outbox import Outbox
from .sqs_queues import Directory, Queue
from .sqs_wire import CRASHES, Entry, Received, read

#: A letter that is looked at is out of sight for so long, or until the look is over.
LOOK_S: Final = 20
_OURS: Final = "qworker."
_SYSTEM: Final = ("ApproximateReceiveCount", "SentTimestamp", "MessageGroupId")


class DeadLetters:
    """One queue of dead letters."""

    def __init__(self, clients: Clients, directory: Directory, outbox: Outbox, queue: Queue) -> None:
        self._clients = clients
        self._directory = directory
        self._outbox = outbox
        self._queue = queue

    def look(self, limit: int) -> list[DeadLetter]:
        """The newest, as far as one look finds them."""
        if limit <= 0:
            return []
        found = self._receive()
        self._give_back(found)
        letters = [_letter(received) for received in found]
        return sorted(letters, key=lambda letter: letter.died_at, reverse=True)[:limit]

    def requeue(self, tokens: Sequence[str]) -> int:
        """Send these to where they came from, then delete them here; returns how many."""
        wanted, rest = self._split(tokens)
        self._give_back(rest)
        done = []
        for received in wanted:
            queue = self._origin(received)
            if queue is not None and self._outbox.ask([Op(SEND, queue, _entry(received, queue))]) == [None]:
                done.append(received)
        self._give_back([received for received in wanted if received not in done])
        return self._delete(done)

    def purge(self, tokens: Sequence[str]) -> int:
        """Delete these; returns how many."""
        wanted, rest = self._split(tokens)
        self._give_back(rest)
        return self._delete(wanted)

    def _split(self, tokens: Sequence[str]) -> tuple[list[Received], list[Received]]:
        """What is named, in the order of the tokens, and the rest."""
        found = {received.id: received for received in self._receive()} if tokens else {}
        wanted = [found[token] for token in dict.fromkeys(tokens) if token in found]
        return wanted, [received for received in found.values() if received not in wanted]

    def _receive(self) -> list[Received]:
        """Everything, until an answer is empty."""
        request: dict[str, Any] = {
            "QueueUrl": self._queue.url,
            "MaxNumberOfMessages": BATCH,
            "WaitTimeSeconds": 1,
            "VisibilityTimeout": LOOK_S,
            "MessageSystemAttributeNames": list(_SYSTEM),
            "MessageAttributeNames": ["All"],
        }
        found: dict[str, Received] = {}
        while True:
            answer = self._clients.call(
                self._queue.account, "receive_message", f"looking into {self._queue.name}", request, polls=True
            )
            messages = [read(message) for message in answer.get("Messages") or ()]
            if not messages or all(received.id in found for received in messages):
                return list(found.values())
            found.update((received.id, received) for received in messages)

    def _give_back(self, letters: Iterable[Received]) -> None:
        changes = [{"ReceiptHandle": received.handle, "VisibilityTimeout": 0} for received in letters]
        ops = [Op(VISIBILITY, self._queue, change) for change in changes]
        if ops:
            self._outbox.ask(ops)

    def _delete(self, letters: Sequence[Received]) -> int:
        ops = [Op(DELETE, self._queue, {"ReceiptHandle": received.handle}) for received in letters]
        return self._outbox.ask(ops).count(None) if ops else 0

    def _origin(self, received: Received) -> Queue | None:
        name = _text(received, "qworker.queue")
        try:
            return self._directory.find(name) if name else None
        except ConfigError:  # the queue is gone: the letter stays
            return None


def _entry(received: Received, queue: Queue) -> Entry:
    """The very body without our remarks: its crashes count from 0 again."""
    entry: Entry = {"MessageBody": received.body}
    kept = {
        name: value
        for name, value in received.attributes.items()
        if not name.startswith(_OURS) or name == "qworker.encoding"
    }
    if kept:
        entry["MessageAttributes"] = kept
    if queue.is_fifo:
        entry["MessageGroupId"] = received.group or "default"
        entry["MessageDeduplicationId"] = f"{received.id}-{received.receives}"
    return entry


def _letter(received: Received) -> DeadLetter:
    try:
        died_at = float(_text(received, "qworker.died_at"))
    except ValueError:
        died_at = received.sent_at
    try:
        details = json.loads(_text(received, "qworker.details") or "{}")
    except ValueError:
        details = {}
    return DeadLetter(
        received.id,
        _text(received, "qworker.queue") or "?",
        _text(received, "qworker.reason") or "redriven",
        received.number(CRASHES),
        died_at,
        details if isinstance(details, dict) else {},
        received.raw,
    )


def _text(received: Received, name: str) -> str:
    return str(received.attributes.get(name, {}).get("StringValue", ""))
