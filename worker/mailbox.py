"""How one thread tells another what to do: a queue, and a descriptor that wakes whoever waits for it."""

from __future__ import annotations

import math
import select
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Letter:
    """One instruction: what, and about which child or with which data."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)


class Mailbox:
    """Any thread posts, one thread takes.

    A letter is in the queue before the descriptor is written, so none is overlooked.
    """

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def post(self, kind: str, **data: Any) -> None:
        """Leave a letter and wake the reader. Never waits."""
        self._letters.append(Letter(kind, data))
        try:
            self._write.send(b"\0")
        except BlockingIOError:  # the reader has plenty of wake-ups waiting already
            return

    def take(self) -> Iterator[Letter]:
        """Every letter that has been posted, in order, each when it is asked for. Never waits."""
        try:
            while self._read.recv(4096):
                pass
        except BlockingIOError:
            pass
        while self._letters:
            yield self._letters.popleft()

    def clear(self) -> None:
        """Forget every letter: they were only to wake the reader."""
        for _ in self.take():
            pass

    def fileno(self) -> int:
        """For `select`: readable when there are letters."""
        return self._read.fileno()

    def close(self) -> None:
        """Close both ends."""
        self._read.close()
        self._write.close()


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def readable(watched: Iterable[_HasDescriptor | int], timeout_s: float | None) -> set[int]:
    """Wait until one of these can be read, or the time is over; return the descriptors that can.

    Not `select.select`, which knows no descriptor above 1023: several hundred children need more.
    """
    poll = select.poll()
    for one in watched:
        poll.register(one, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000))}
