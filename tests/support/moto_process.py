"""A moto server whose SQS hands out each message once: run as a program with the port as its argument.

moto serves each request in a thread of its own and locks nothing: two receives at the same time may get the same
message, and a send beside a delete may be lost. AWS's standard queues do the first now and then, and never the second.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from moto.server import main
from moto.sqs.models import SQSBackend

_LOOK_S = 0.02
_lock = threading.RLock()


def alone(call: Callable[..., Any]) -> Callable[..., Any]:
    """One at a time."""

    @wraps(call)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            return call(*args, **kwargs)

    return locked


def patient(receive: Callable[..., Any]) -> Callable[..., Any]:
    """A long poll that holds the lock only while it looks."""

    def receive_message(
        self: Any, queue_name: str, count: int, wait_seconds_timeout: int, visibility_timeout: int, *rest: Any
    ) -> Any:
        until = time.monotonic() + wait_seconds_timeout
        while True:
            with _lock:
                found = receive(self, queue_name, count, 0, visibility_timeout, *rest)
            if found or time.monotonic() >= until:
                return found
            time.sleep(_LOOK_S)

    return receive_message


if __name__ == "__main__":
    for name in ("change_message_visibility", "delete_message", "purge_queue", "send_message"):
        setattr(SQSBackend, name, alone(getattr(SQSBackend, name)))
    SQSBackend.receive_message = patient(SQSBackend.receive_message)  # type: ignore[method-assign]
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
