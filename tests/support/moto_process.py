"""A moto server whose SQS keeps its word: run as a program with the port as its argument.

moto serves each request in a thread of its own and locks nothing: two receives at the same time may get the same
message, a send beside a delete may be lost, and a count may miss a message that moves meanwhile. AWS's standard queues
do the first now and then, and never the second; their counts are about right only, but tests look for exact ones.

A long poll of somebody who has gone ends with its queue: moto's own would go on with the next queue of that name, and
take messages away from the next test.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from moto.core.utils import unix_time_millis
from moto.server import main
from moto.sqs.models import Queue, SQSBackend

_LOOK_S = 0.02
_lock = threading.RLock()
_COUNT = "approximate_number_of_messages"


def alone(call: Callable[..., Any]) -> Callable[..., Any]:
    """One at a time."""

    @wraps(call)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            return call(*args, **kwargs)

    return locked


def patient(receive: Callable[..., Any]) -> Callable[..., Any]:
    """A long poll that holds the lock only while it looks, and never looks into another queue than its first."""

    def receive_message(
        self: Any, queue_name: str, count: int, wait_seconds_timeout: int, visibility_timeout: int, *rest: Any
    ) -> Any:
        until = time.monotonic() + wait_seconds_timeout
        queue = self.queues.get(queue_name)
        while True:
            with _lock:
                is_over = self.queues.get(queue_name) is not queue
                found = [] if is_over else receive(self, queue_name, count, 0, visibility_timeout, *rest)
            if found or is_over or time.monotonic() >= until:
                return found
            time.sleep(_LOOK_S)

    return receive_message


class Census:
    """Counts a queue's messages at one moment, and only for who asks: moto counts them anew at each send."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int, int]] | None = None

    def asked(self, look: Callable[..., Any]) -> Callable[..., Any]:
        """`look` at attributes, with the counts that are so at its beginning."""

        @wraps(look)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with _lock:
                self._found = {}
                try:
                    return look(*args, **kwargs)
                finally:
                    self._found = None

        return counted

    def of(self, at: int) -> property:
        """The attribute: how many are visible, in flight, delayed."""
        return property(lambda queue: self._of(queue)[at])

    def _of(self, queue: Any) -> tuple[int, int, int]:
        if self._found is None:
            return 0, 0, 0
        if queue.name not in self._found:
            now = unix_time_millis()
            delayed = [now < message.delayed_until for message in queue._messages]
            hidden = [now <= message.visible_at for message in queue._messages]
            visible = len(delayed) - sum(map(max, delayed, hidden))
            self._found[queue.name] = visible, sum(hidden), sum(delayed)
        return self._found[queue.name]


if __name__ == "__main__":
    census = Census()
    for at, name in enumerate((_COUNT, f"{_COUNT}_not_visible", f"{_COUNT}_delayed")):
        setattr(Queue, name, census.of(at))
    for name in ("change_message_visibility", "delete_message", "purge_queue", "reset", "send_message"):
        setattr(SQSBackend, name, alone(getattr(SQSBackend, name)))
    SQSBackend.receive_message = patient(SQSBackend.receive_message)  # type: ignore[method-assign]
    SQSBackend.get_queue_attributes = census.asked(SQSBackend.get_queue_attributes)  # type: ignore[method-assign]
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
