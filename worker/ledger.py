"""The one record of every delivery this worker holds. Owned by the consumer thread.

A delivery's life: HELD → SENT → (back to HELD when it is taken back) → SETTLING → gone. `settle` may be called once
per entry; a second call is a bug and raises, so that no message is settled twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from enum import IntEnum
from itertools import count

from ..transports import Delivery


class State(IntEnum):
    """Where a delivery is."""

    HELD = 0  # in the master's buffer
    SENT = 1  # in a child's channel, or running
    SETTLING = 2  # its end is known; waiting for the broker


class Entry:
    """One delivery and where it is. Hot path: a plain slots class.

    `acked` means that the broker has settled it already (at-most-once tasks are acked when they start);
    `is_acking` that this has been asked of it; `fenced` that the broker gave it to somebody else: whatever it still
    does here counts for nothing. `checkpoint` is what replaces it if its run is cut: priority and envelope. `came_at`:
    when it was received, on the monotonic clock.
    """

    __slots__ = ("acked", "came_at", "channel", "checkpoint", "delivery", "fenced", "is_acking", "seq", "state")

    def __init__(self, seq: int, delivery: Delivery, came_at: float) -> None:
        self.came_at = came_at
        self.seq = seq
        self.delivery = delivery
        self.state = State.HELD
        self.channel = -1
        self.acked = False
        self.is_acking = False
        self.fenced = False
        self.checkpoint: tuple[int, bytes] | None = None


class Ledger:
    """Every entry by sequence number, and the buffer of those that no child has."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._buffer: deque[Entry] = deque()
        self._suspects: list[Entry] = []
        self._numbers = count(1)

    def __len__(self) -> int:
        """How many deliveries are in flight, settled ones that wait for the broker included."""
        return len(self._entries)

    @property
    def held(self) -> int:
        """How many wait in the buffer."""
        return len(self._buffer)

    def receive(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Enter what was reserved just now, at the end of the buffer; what has crashed before, among the suspects."""
        for delivery in deliveries:
            entry = Entry(next(self._numbers), delivery, now)
            self._entries[entry.seq] = entry
            (self._suspects if delivery.crashes else self._buffer).append(entry)

    def take_suspects(self) -> list[Entry]:
        """Remove and return what has crashed before, oldest first: to be settled, or put back to the buffer."""
        suspects, self._suspects = self._suspects, []
        return suspects

    def take(self) -> Entry:
        """Remove and return the next buffered entry. IndexError when there is none."""
        return self._buffer.popleft()

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Return entries that no child has started to the front of the buffer, oldest first."""
        for entry in sorted(entries, key=_by_seq, reverse=True):
            entry.state = State.HELD
            entry.channel = -1
            self._buffer.appendleft(entry)

    def get(self, seq: int) -> Entry | None:
        """The entry of this number while it is not settled."""
        return self._entries.get(seq)

    def settle(self, entry: Entry) -> None:
        """Its end is known: it is not held, sent or run any more, only waits to be forgotten."""
        if entry.state is State.SETTLING:
            raise RuntimeError(f"delivery {entry.delivery.tag} would be settled twice")
        entry.state = State.SETTLING

    def forget(self, entry: Entry) -> None:
        """The broker knows. Harmless for an entry that is forgotten already."""
        self._entries.pop(entry.seq, None)

    def repair(self, settling: Container[Entry]) -> list[Entry]:
        """Bring the books in order after an error in the middle of a change; `settling` has what is to be sent.

        What is in nobody's hands goes back to the buffer. Returns entries whose end was known and is so no more.
        """
        self._suspects.clear()
        self._buffer.clear()
        self.put_back([entry for entry in self._entries.values() if entry.state is State.HELD])
        return [e for e in self._entries.values() if e.state is State.SETTLING and e not in settling]

    def empty_buffer(self) -> list[Entry]:
        """Take every buffered entry, oldest first."""
        entries = list(self._buffer)
        self._buffer.clear()
        return entries

    def sent_to(self, channel: int) -> list[Entry]:
        """What the channel of this serial number has and has not answered, oldest first."""
        return [e for e in self._entries.values() if e.state is State.SENT and e.channel == channel]

    def unsettled(self) -> list[Entry]:
        """Every entry whose end is not known yet."""
        return [e for e in self._entries.values() if e.state is not State.SETTLING]

    def entries(self) -> list[Entry]:
        """Every entry."""
        return list(self._entries.values())


def _by_seq(entry: Entry) -> int:
    return entry.seq
