"""What the consumer thread waits on: its children, the broker's wake-up, the master's letters. Owned by that thread."""

from __future__ import annotations

import selectors
from collections.abc import Iterable

from .dispatcher import Seat
from .mailbox import Mailbox


class Waiting:
    """A selector that knows what its descriptors mean."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._begin()

    def _begin(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._mailbox.fileno(), selectors.EVENT_READ, None)
        self._wake_fd: int | None = None

    def add(self, seat: Seat) -> None:
        """From now on, hear this child."""
        self._selector.register(seat.channel.fileno(), selectors.EVENT_READ, seat)

    def remove(self, seat: Seat) -> None:
        """Hear it no more."""
        self._selector.unregister(seat.channel.fileno())

    def watch_wake(self, fd: int | None) -> None:
        """The broker wakes us by this descriptor; None = by none."""
        if self._wake_fd is not None:
            self._selector.unregister(self._wake_fd)
        self._wake_fd = fd
        if fd is not None:
            self._selector.register(fd, selectors.EVENT_READ, "wake")

    def watch_backlogs(self, seats: Iterable[Seat]) -> None:
        """Ask to be woken when a child that is being sent something large can take more."""
        for seat in seats:
            has_backlog = seat.channel.has_backlog
            if has_backlog != seat.has_backlog and not seat.is_deaf:
                seat.has_backlog = has_backlog
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if has_backlog else 0)
                self._selector.modify(seat.channel.fileno(), events, seat)

    def wait(self, timeout_s: float) -> tuple[list[Seat], bool]:
        """Sleep until something happens: which children have spoken, and whether the broker has woken us.

        What is being sent to a child goes on as far as the child takes it.
        """
        spoken, woke = [], False
        for key, mask in self._selector.select(timeout_s):
            if isinstance(key.data, Seat):
                if mask & selectors.EVENT_WRITE:
                    key.data.channel.flush()
                if mask & selectors.EVENT_READ:
                    spoken.append(key.data)
            elif key.data is not None:
                woke = True
        return spoken, woke

    def renew(self, seats: Iterable[Seat]) -> None:
        """After an error at whatever point: wait on these children and nothing else."""
        self._selector.close()
        self._begin()
        for seat in seats:
            seat.has_backlog = False
            if not seat.is_deaf:
                self.add(seat)

    def close(self) -> None:
        """Let go of the descriptor."""
        self._selector.close()
