"""What the consumer thread tells the master. Each `kind` is a key of the table in `worker/news.py`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .dispatcher import Seat


@dataclass(frozen=True, slots=True)
class Notice:
    """One piece of news: what, about which slot's child, with which data."""

    kind: str
    slot: int = -1
    data: dict[str, Any] = field(default_factory=dict)


class Notices:
    """Owned by the consumer thread; `notify` wakes the master.

    `is_awaited`: the master, which sets this, wants to be told of the next message or outage.
    """

    def __init__(self, notify: Callable[[Notice], None]) -> None:
        self._notify = notify
        self.is_awaited = False

    def tell(self, kind: str, **data: Any) -> None:
        """News of the worker as a whole."""
        self._notify(Notice(kind, data=data))

    def tell_of(self, seat: Seat, kind: str, **data: Any) -> None:
        """News of one child."""
        self._notify(Notice(kind, seat.channel.slot, {"serial": seat.channel.serial, **data}))

    def stir(self) -> None:
        """Something has happened that the master may be waiting for."""
        if self.is_awaited:
            self.is_awaited = False
            self.tell("stirred")

    def boot_failed(self, seat: Seat, text: str) -> None:
        """This child has said why it cannot start."""
        self.tell_of(seat, "boot_failed", traceback=text)

    def spent(self, seat: Seat) -> None:
        """This child has been given as many messages as it may run."""
        self.tell_of(seat, "spent")

    def signal_child(self, seat: Seat, number: signal.Signals) -> None:
        """This child is to be sent a signal."""
        self.tell_of(seat, "signal_child", number=number)
