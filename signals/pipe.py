"""The self-pipe: the handler notes the number and wakes the loop, nothing else (no logging, locking or sleeping there).

Used by the master's main thread. CPython's own C-level handler writes the number to the descriptor
(`signal.set_wakeup_fd`), so a signal is noted even while the interpreter is inside a long C call.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType

_READ_AT_ONCE = 4096


class SignalPipe:
    """Collects signal numbers, in order of arrival. Main thread only."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._signals = tuple(signals)
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._previous: dict[signal.Signals, object] = {}
        self._previous_fd = -1

    def install(self) -> None:
        """Start to collect. System calls are restarted (siginterrupt off)."""
        # A burst of signals that fills the socket loses only repeats of what is already noted: no warning needed.
        self._previous_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in self._signals:
            self._previous[number] = signal.signal(number, _noted)
            signal.siginterrupt(number, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)  # what arrived while this process started counts

    def fileno(self) -> int:
        """The descriptor for `select`: readable when a signal has arrived."""
        return self._read.fileno()

    def take(self) -> list[signal.Signals]:
        """Return the collected signals and forget them. Never waits."""
        taken: list[signal.Signals] = []
        while True:
            try:
                numbers = self._read.recv(_READ_AT_ONCE)
            except BlockingIOError:
                return taken
            taken.extend(signal.Signals(n) for n in numbers if n in self._signals)
            if len(numbers) < _READ_AT_ONCE:
                return taken

    def bequeath(self) -> int:
        """Hold the signals back from this thread, and let what has been collected survive an exec.

        Returns the descriptor for `inherit` in the next image. A thread that does not hold them back may still collect
        some: they are in there as well.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        os.set_inheritable(self._read.fileno(), True)
        return self._read.fileno()

    def inherit(self, fd: int) -> None:
        """Collect what was collected by the image before this one, in order; closes `fd` (-1: there was none)."""
        if fd < 0:
            return
        with suppress(OSError), socket.socket(fileno=fd) as left:
            left.setblocking(False)
            while numbers := left.recv(_READ_AT_ONCE):
                self._write.send(numbers)

    def close(self, *, is_last: bool = False) -> None:
        """Restore the handlers and the wake-up descriptor that were there before `install`.

        With `is_last` the process is about to end with an exit code of its own: its signals are ignored from now on.
        """
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if is_last else handler)  # type: ignore[arg-type]
        if self._previous:
            signal.set_wakeup_fd(self._previous_fd)
            self._previous.clear()
        self._read.close()
        self._write.close()


def _noted(signum: int, frame: FrameType | None) -> None:
    """The number is already in the pipe; a Python-level handler must exist for that to happen."""
