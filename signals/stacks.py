"""Stacks of all threads, written by C code: also while the interpreter is busy in an extension or dies of a fault."""

from __future__ import annotations

import faulthandler
import signal
from typing import Final

#: By this signal a child is asked for its stacks.
SIGNAL: Final = signal.SIGUSR1


def offer_stacks(fd: int) -> None:
    """Write the stacks of this process to `fd` on SIGUSR1 and when it dies of a fault (SIGSEGV, SIGABRT, SIGBUS, …)."""
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)
    faulthandler.enable(file=fd, all_threads=True)


def own_stacks() -> str:
    """The stacks of this process now."""
    import tempfile  # loads a dozen modules for what is asked once in a worker's life

    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read().decode("utf-8", "replace")
