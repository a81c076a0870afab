"""Children's seats: who has how much to do, who gets the next message, who must give some back.

Owned by the consumer thread. The channel of a child is its seat's; a seat's `load` counts packets sent and neither
answered nor taken back.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Final

from ..core.clock import Clock
from ..pool import Channel, Pace, pack_task
from .ledger import Entry, Ledger, State
from .limits import Limit

#: A child that has reported nothing for this long while others are idle gives back what it has not read (promise: 50
#: ms).
STUCK_S: Final = 0.020


class Seat:
    """One child, as the consumer sees it. `is_deaf`: its talk socket is closed, its exit status is still to come."""

    __slots__ = (
        "born_kib",
        "channel",
        "condemned_for",
        "has_backlog",
        "is_deaf",
        "is_leaving",
        "is_ready",
        "is_retired",
        "left",
        "limits",
        "load",
        "look_at",
        "marked_at",
        "memory_cause",
        "progress_at",
        "stack",
        "was_ready",
    )

    def __init__(self, channel: Channel, left: int | None = None) -> None:
        self.channel = channel
        self.left = left  # how many messages it may still be given; None = any number
        self.is_retired = False  # it gets nothing more and leaves when it has finished
        self.is_ready = False
        self.was_ready = False  # it has booted, whatever became of it
        self.born_kib: int | None = None  # its memory before its first task, if there is a limit
        self.is_leaving = False
        self.is_deaf = False
        self.has_backlog = False
        self.limits: tuple[int, Limit] | None = None  # of the message that started last, if it has any
        self.stack = ""  # the last that it has written
        self.memory_cause = ""  # why it is being killed, if it is for its memory
        self.condemned_for = 0  # the message for which this child is being killed
        self.load = 0
        self.progress_at = 0.0
        self.marked_at = -1.0  # the `progress_at` since which its run is marked as started
        self.look_at = 0.0  # when to look whether it runs, if it did not when last looked at


class Dispatcher:
    """All seats, and the moving of messages between buffer and channels."""

    def __init__(
        self,
        ledger: Ledger,
        pace: Pace,
        clock: Clock,
        *,
        quota: Callable[[], int | None] = lambda: None,
        on_spent: Callable[[Seat], None] = lambda _: None,
    ) -> None:
        self._quota = quota
        self._on_spent = on_spent
        self._ledger = ledger
        self._pace = pace
        self._clock = clock
        self._queue_names: dict[str, bytes] = {}
        self.seats: dict[int, Seat] = {}  # by channel serial
        self.most_busy = sys.maxsize  # how many children may work at once

    def add(self, channel: Channel) -> Seat:
        """A child has been asked for; it gets work once it says that it is ready."""
        seat = Seat(channel, self._quota())
        self.seats[channel.serial] = seat
        return seat

    def reprieve(self, seat: Seat) -> None:
        """A child that may be given nothing more may be given as much as a new one."""
        if seat.left == 0:
            seat.left = self._quota()

    def working(self) -> list[Seat]:
        """Seats that may get messages."""
        return [s for s in self.seats.values() if s.is_ready and not s.is_leaving and not s.is_retired]

    def is_idle(self) -> bool:
        """Whether no child is at work: then nothing is gained by letting settlements wait for company."""
        return all(seat.load == 0 for seat in self.seats.values())

    def dispatch(self) -> None:
        """Send buffered messages: every child gets as many as the others, none more than the pace allows."""
        waiting = self._ledger.held
        if not waiting:
            return
        seats = self.working()
        if not seats:
            return
        level = math.ceil((waiting + sum(s.load for s in seats)) / max(1, min(len(seats), self.most_busy)))
        level = min(level, self._pace.depth())
        now = self._clock.monotonic()
        for seat in sorted(seats, key=_by_load):
            if not seat.load and not self._may_start_one_more():
                continue
            while seat.load < level and seat.left != 0 and self._ledger.held:
                if not self._send(seat, now):
                    break

    def _may_start_one_more(self) -> bool:
        """Whether fewer children work than may work at once.

        A child that is being replaced and its successor are both there for a while; they count as one.
        """
        return sum(seat.load > 0 for seat in self.seats.values()) < self.most_busy

    def _send(self, seat: Seat, now: float) -> bool:
        entry = self._ledger.take()
        if entry.fenced:
            self._ledger.settle(entry)
            self._ledger.forget(entry)
            return True
        delivery = entry.delivery
        packet = pack_task(entry.seq, delivery.crashes, self._queue_name(delivery.queue), delivery.raw)
        entry.state = State.SENT
        entry.channel = seat.channel.serial
        try:
            is_sent = seat.channel.send(packet)
        except OSError:
            self._ledger.put_back([entry])
            raise
        if not is_sent:
            self._ledger.put_back([entry])
            return False
        if not seat.load:
            seat.progress_at = now
        seat.load += 1
        if seat.left is not None:
            seat.left -= 1
            if not seat.left:
                self._on_spent(seat)
        return True

    def _queue_name(self, queue: str) -> bytes:
        name = self._queue_names.get(queue)
        if name is None:
            name = self._queue_names[queue] = queue.encode()
        return name

    def take_back(self, seat: Seat) -> list[Entry]:
        """Everything this child has not read, oldest first; it is in nobody's hands afterwards."""
        entries = []
        for seq in seat.channel.take_back():
            entry = self._ledger.get(seq)
            if entry is not None and entry.state is State.SENT:
                entries.append(entry)
        seat.load -= len(entries)
        if seat.left is not None:
            seat.left += len(entries)
        return entries

    def rebalance(self, now: float) -> None:
        """Free short tasks that wait behind a long one while another child is idle."""
        for seat in self._stuck(now):
            self._ledger.put_back(self.take_back(seat))

    def rebalance_at(self, now: float) -> float:
        """When `rebalance` has something to look at next; infinity while nobody is idle or nobody has work waiting."""
        seats = self.working()
        if self._ledger.held or not self._is_somebody_free(seats):
            return math.inf
        waiting = [s.progress_at for s in seats if s.load > 1]
        return max(now, min(waiting) + STUCK_S) if waiting else math.inf

    def _is_somebody_free(self, seats: list[Seat]) -> bool:
        return any(s.load == 0 and s.left != 0 for s in seats) and self._may_start_one_more()

    def _stuck(self, now: float) -> list[Seat]:
        seats = self.working()
        if self._ledger.held or not self._is_somebody_free(seats):
            return []
        return [s for s in seats if s.load > 1 and now - s.progress_at >= STUCK_S]


def _by_load(seat: Seat) -> int:
    return seat.load
