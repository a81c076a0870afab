"""A stream that somebody else reads: lines go to it without waiting long for the reader. Used by `core.log_sinks`.

A reader that has stopped (a terminal at Ctrl-S, a container engine that hangs, a stopped journal) must not stop work,
and least of all keep a signal from being obeyed. What the stream has not taken within a second is lost; from then on
nobody waits, until it takes a line again and it is told how many were lost.

To write without waiting the stream is opened once more, for our own use: O_NONBLOCK set on the descriptor that we were
given would hold for everybody who shares it. Where that cannot be (a socket, a pipe of another user, a system without
/proc) the stream is asked before each write, which then is so short that it is taken whole.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

_STUCK_S: Final = 1.0
#: What a socket takes at once when it takes anything: it says so with three quarters of its buffer free.
_SOCKET_PIECE: Final = 32 * 1024

Send = Callable[[bytes], int]


class Outlet:
    """Any thread. `lost` counts lines since the stream has stopped taking them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own, self._send = self._way()
        self._is_torn = False  # half a line was taken
        self.lost = 0

    def write(self, line: bytes) -> bool:
        """Write a line, or lose it; whether it was written. Raises OSError for a stream that never takes one again."""
        line = b"\n" + line if self._is_torn else line
        left = line
        while left:
            try:
                left = left[self._send(left) :]
            except BlockingIOError:
                if self.lost or not self._has_room_within(_STUCK_S):
                    self.lost += 1
                    self._is_torn = self._is_torn or len(left) < len(line)
                    return False
        self._is_torn = False
        return True

    def close(self) -> None:
        """Let go of what was opened here."""
        if self._own is not None:
            with suppress(OSError):
                os.close(self._own)

    def _way(self) -> tuple[int | None, Send]:
        """What was opened for it, and how bytes are sent: never waiting, as far as the stream is one to wait for."""
        mode = _mode(self._fd)
        if stat.S_ISSOCK(mode):
            return None, partial(self._ask_and_send, _SOCKET_PIECE)
        if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(self._fd)):
            own = _opened_again(self._fd)
            return own, partial(self._ask_and_send, select.PIPE_BUF) if own is None else partial(os.write, own)
        return None, partial(os.write, self._fd)

    def _ask_and_send(self, piece: int, data: bytes) -> int:
        if not self._has_room_within(0.0):
            raise BlockingIOError
        return os.write(self._fd, data[:piece])

    def _has_room_within(self, limit_s: float) -> bool:
        poll = select.poll()  # one of its own for each thread; unlike select() it knows descriptors above 1023
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(limit_s * 1000))


def _opened_again(fd: int) -> int | None:
    """The same stream under a number of its own that never waits; None where that cannot be had."""
    with suppress(OSError):
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return None


def _mode(fd: int) -> int:
    with suppress(OSError):  # closed already: what is written is lost
        return os.fstat(fd).st_mode
    return 0
