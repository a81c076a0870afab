"""The command that waits for a worker in the background, as that worker sees it: somebody to be told how it goes.

Until the worker is ready, what it writes to stderr and what it logs as a warning or worse goes to the caller too. It is
a companion of the master (`core/companion.py`), and so hears when the worker is ready. Processes that the master
forks have no part in it.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import TextIOBase
from typing import Any, Final

from ..core.companion import Watched

TEXT: Final = 1
READY: Final = 2

_HEAD: Final = struct.Struct("<BI")
#: Frames of several threads do not mix while each is below PIPE_BUF (pipe(7)).
_PIECE: Final = 2048


class Caller:
    """The worker's end of the pipe. Main thread of the master; a line that is logged may come from any thread."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        self._pid = os.getpid()
        self._worker: Watched | None = None
        self._handler = _Told(self)
        self._stderr: Any = None
        self.is_quiet = False
        os.register_at_fork(after_in_child=self._forget)

    @property
    def fd(self) -> int | None:
        """The pipe; None when the caller has been told, or this is another process."""
        return self._fd

    def listen(self) -> None:
        """Send copies of stderr and of warnings from now on."""
        self._stderr = sys.stderr
        sys.stderr = _Both(self._stderr, self)
        logging.getLogger("qworker").addHandler(self._handler)

    def say(self, text: str) -> None:
        """Show it on the caller's stderr. Nothing happens when nobody listens any more."""
        self._send(TEXT, text)

    def open(self, worker: Watched) -> None:
        """The worker starts."""
        self._worker = worker

    def descriptors(self) -> Sequence[int]:
        """Nothing to wait for."""
        return ()

    def next_at(self) -> float:
        """Nothing is due."""
        return math.inf

    def turn(self) -> None:
        """Let the caller go as soon as the worker is ready."""
        if self._fd is None or self._worker is None:
            return
        status = self._worker.status()
        if status.is_ready:
            text = f"qworker: {status.node} is ready and runs in the background, pid {status.pid}\n"
            self._send(READY, "" if self.is_quiet else text)
            self._forget()

    def close(self) -> None:
        """Nothing yet: why the worker has ended is still to be said, by the command line."""

    def _send(self, kind: int, text: str) -> None:
        if self._fd is None:
            return
        data = text.encode("utf-8", "backslashreplace")
        try:
            for at in range(0, max(1, len(data)), _PIECE):
                piece = data[at : at + _PIECE]
                os.write(self._fd, _HEAD.pack(kind, len(piece)) + piece)
        except OSError:  # the caller was killed: the worker goes on without
            self._forget()

    def _forget(self) -> None:
        """Close the pipe and stop copying; in a forked process at once, without a word."""
        if self._fd is None:
            return
        with suppress(OSError):
            os.close(self._fd)
        self._fd = None
        logging.getLogger("qworker").removeHandler(self._handler)
        if isinstance(sys.stderr, _Both):
            sys.stderr = self._stderr


def frames(fd: int) -> Iterator[tuple[int, bytes]]:
    """What a worker sends, until the pipe ends."""
    with os.fdopen(fd, "rb", closefd=True) as pipe:
        while len(head := pipe.read(_HEAD.size)) == _HEAD.size:
            kind, length = _HEAD.unpack(head)
            yield kind, pipe.read(length)


class _Both(TextIOBase):
    """The worker's stderr, and a copy to the caller."""

    def __init__(self, own: Any, caller: Caller) -> None:
        self._own = own
        self._caller = caller

    def write(self, text: str) -> int:
        """Write it to both."""
        self._caller.say(text)
        return int(self._own.write(text))

    def flush(self) -> None:
        """Flush what has a buffer."""
        self._own.flush()

    def fileno(self) -> int:
        """The worker's own."""
        return int(self._own.fileno())

    def isatty(self) -> bool:
        """Whether the worker's own is a terminal."""
        return bool(self._own.isatty())


class _Told(logging.Handler):
    """Warnings and worse, in few words: the time is now and the process is known."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(logging.WARNING)
        self._caller = caller

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record's text."""
        try:
            text = record.getMessage()
        except Exception:  # a format string that does not fit: the log's own handler reports it
            return
        self._caller.say(f"qworker: {record.levelname.lower()}: {text}\n")
