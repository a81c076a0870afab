"""One shared record per slot: what its child runs and since when. The child writes, the master reads.

A memory file that master, spawner and children map; reading costs no system call and needs no answer from a child
that is busy in C code. Used for time limits and status.

The file also holds the lease horizon: a master that was stopped (SIGSTOP, a paused virtual machine) cannot take back
what waits in a channel, so a child asks before it starts anything once that moment has passed.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final, NamedTuple

from ..core.clock import SystemClock
from .memfile import memory_file

_RECORD: Final = struct.Struct("<QdH")
_TEXT_BYTES: Final = 200  # 18 + 200 + 9 bytes fit the slot
_SLOT_BYTES: Final = 256
#: More children than this in one worker are refused (the file is sparse: unused slots cost nothing).
MAX_SLOTS: Final = 1024
#: While children are replaced, and after a reload, there are more of them than there should be.
TABLE_SLOTS: Final = 4 * MAX_SLOTS
#: Behind the slots: until when the worker's lease is certain.
_LEASE_AT: Final = _SLOT_BYTES * TABLE_SLOTS
_LEASE: Final = struct.Struct("<d")
_STOPPING_AT: Final = _LEASE_AT + 8
#: What the clock's `boottime` lacks to the broker's time of day, 0 = not known.
_BASE_AT: Final = _LEASE_AT + 16
#: The end of each slot belongs to the master: which message is ordered to do what.
_ORDER: Final = struct.Struct("<QB")
_ORDER_AT: Final = _SLOT_BYTES - _ORDER.size
_FILE_BYTES: Final = _LEASE_AT + 4096


_clock: Final = SystemClock()


class Running(NamedTuple):
    """What a child runs: sequence number, start on the monotonic clock, `id name` for people."""

    seq: int
    started: float
    text: str


class SlotTable:
    """The shared file. Any process that has the descriptor maps it; each slot has one writer, its child."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _FILE_BYTES)

    @classmethod
    def create(cls) -> SlotTable:
        """Make a new table."""
        fd = memory_file("qworker-slots")
        os.ftruncate(fd, _FILE_BYTES)
        return cls(fd)

    def begin(self, slot: int, seq: int, started: float, text: bytes) -> None:
        """Note that the child of `slot` starts message `seq` now.

        The sequence number is written last: it makes the rest valid.
        """
        at = slot * _SLOT_BYTES
        text = text[:_TEXT_BYTES]
        self._map[at : at + 8] = b"\0" * 8
        self._map[at + 8 : at + 18 + len(text)] = struct.pack("<dH", started, len(text)) + text
        self._map[at : at + 8] = struct.pack("<Q", seq)

    def end(self, slot: int) -> None:
        """Note that the child of `slot` runs nothing."""
        at = slot * _SLOT_BYTES
        self._map[at : at + 8] = b"\0" * 8

    def read(self, slot: int) -> Running | None:
        """What the child of `slot` runs, or None.

        A record that changes while it is read is read again by the next call.
        """
        at = slot * _SLOT_BYTES
        record = self._map[at : at + _SLOT_BYTES]
        seq, started, length = _RECORD.unpack_from(record)
        if not seq or self._map[at : at + 8] != record[:8]:
            return None
        text = record[_RECORD.size : _RECORD.size + min(length, _TEXT_BYTES)]
        return Running(seq, started, text.decode("utf-8", "replace"))

    def give_order(self, slot: int, seq: int, order: int) -> None:
        """Order the run of message `seq` in `slot` to stop (`tasks.interrupts.Order`).

        Written by the consumer thread, and by the master's at the moment of a cold stop.
        """
        _ORDER.pack_into(self._map, slot * _SLOT_BYTES + _ORDER_AT, seq, order)

    def order(self, slot: int, seq: int) -> int:
        """What message `seq` in `slot` is ordered to do, 0 = nothing. Read by the child."""
        about, order = _ORDER.unpack_from(self._map, slot * _SLOT_BYTES + _ORDER_AT)
        return order if about == seq else 0

    def set_stopping(self) -> None:
        """The worker has begun to stop. Written by the master."""
        self._map[_STOPPING_AT] = 1

    def is_stopping(self) -> bool:
        """Whether the worker has begun to stop."""
        return bool(self._map[_STOPPING_AT])

    def set_lease(self, until: float) -> None:
        """The lease is certain until this moment of the clock's `boottime`. Written by the consumer thread."""
        _LEASE.pack_into(self._map, _LEASE_AT, until)

    def has_lease(self) -> bool:
        """Whether the worker's lease is certain now.

        A child asks before it starts a message that may have waited for long.
        """
        until: float = _LEASE.unpack_from(self._map, _LEASE_AT)[0]
        return _clock.boottime() < until

    def set_broker_base(self, base: float) -> None:
        """The broker's time of day is `boottime` and `base` (see `core.clock`). Written by the consumer thread."""
        _LEASE.pack_into(self._map, _BASE_AT, base)

    def broker_base(self) -> float:
        """What was set, or 0."""
        base: float = _LEASE.unpack_from(self._map, _BASE_AT)[0]
        return base

    def close(self) -> None:
        """Unmap and close."""
        self._map.close()
        os.close(self.fd)
