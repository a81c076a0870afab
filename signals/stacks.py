"""Stacks of all threads, written by C code: also while the interpreter is busy in an extension or dies of a fault."""

from __future__ import annotations

import faulthandler
import os
import signal
from types import FrameType
from typing import IO, Final

#: By this signal a child is asked for its stacks.
SIGNAL: Final = signal.SIGUSR1
_MASTERS: Final = (SIGNAL, signal.SIGUSR2)


def offer_stacks(fd: int) -> None:
    """Write the stacks of this process to `fd` on SIGUSR1 and when it dies of a fault (SIGSEGV, SIGABRT, SIGBUS, …)."""
    signal.signal(SIGNAL, _offered)  # a mark: whoever sets another handler changes what `getsignal` says
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)
    faulthandler.enable(file=fd, all_threads=True)


def keep_offering(fd: int) -> None:
    """Offer them again if the signal has been given another meaning since; without one it would end this process.

    And hear the master's signals again if they have been blocked: no order would arrive any more.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _MASTERS)
    if signal.getsignal(SIGNAL) is not _offered:
        faulthandler.unregister(SIGNAL)
        offer_stacks(fd)


def _offered(signum: int, frame: FrameType | None) -> None:
    """Never called while stacks are offered: C code answers."""


def own_stacks() -> str:
    """The stacks of this process now. Never raises: the file system may be read-only, or no descriptor be left."""
    try:
        with _file() as file:
            faulthandler.dump_traceback(file=file, all_threads=True)
            file.seek(0)
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"(they cannot be written: {error.strerror})"


def _file() -> IO[bytes]:
    """One that needs no place on a disk, where there is such a thing (Linux)."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("qworker-stacks"), "w+b")
    import tempfile  # loads a dozen modules for what is asked once in a worker's life

    return tempfile.TemporaryFile()
