"""Marks on the broker which messages run, so that a worker's death counts as their crash and nobody else's.

Owned by the consumer thread. Only what has run for a moment is marked: short tasks, and with them the hot path, cost
nothing. A stop ends the marks: whoever kills a worker that takes too long over it blames no task.
"""

from __future__ import annotations

import math
from typing import Final

from ..core.clock import Clock
from ..pool import SlotTable
from ..transports import Transport
from .dispatcher import Dispatcher, Seat
from .ledger import Entry, Ledger, State

#: What has run for so long is marked. A message that takes its worker down faster than that goes uncounted.
MARK_AFTER_S: Final = 0.020


class Marks:
    """Which seats to look at next, and when."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher, table: SlotTable, clock: Clock) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._table = table
        self._clock = clock
        self._has_ended = False

    def end(self, transport: Transport) -> None:
        """A stop has begun: tell the broker, once. Raises TransportError; the next call tries again then."""
        if not self._has_ended:
            transport.mark_stopping()
            self._has_ended = True

    def next_at(self) -> float:
        """When `mark` has something to look at."""
        if self._has_ended:
            return math.inf
        return min((_look_at(seat) for seat in self._dispatcher.seats.values() if seat.load), default=math.inf)

    def mark(self, transport: Transport) -> None:
        """Mark what has been running for long enough. Raises TransportError; the next call tries again then."""
        if self._has_ended:
            return
        now = self._clock.monotonic()
        due = [seat for seat in self._dispatcher.seats.values() if seat.load and _look_at(seat) <= now]
        if not due:
            return
        running = [(seat, self._running(seat, now)) for seat in due]
        started = [entry for _, entry in running if entry is not None]
        if started:
            transport.mark_started([entry.delivery for entry in started])
        for seat, entry in running:
            if entry is None:
                seat.look_at = now + MARK_AFTER_S
            else:
                seat.marked_at = seat.progress_at

    def _running(self, seat: Seat, now: float) -> Entry | None:
        """What this seat's child has been running for long enough and the broker still holds for us."""
        running = self._table.read(seat.channel.slot)
        if running is None or now - running.started < MARK_AFTER_S:
            return None
        entry = self._ledger.get(running.seq)
        if entry is None or entry.state is not State.SENT or entry.acked or entry.fenced:
            return None
        return entry if entry.channel == seat.channel.serial else None


def _look_at(seat: Seat) -> float:
    """When to look at this seat: a moment after its child last reported, not again once its run is marked."""
    if seat.marked_at == seat.progress_at:
        return math.inf
    return max(seat.progress_at + MARK_AFTER_S, seat.look_at)
