"""Into the background: the command that was typed waits until the worker is ready or has failed, then ends as it did.

Three processes, while the worker starts:

    the command   in the terminal; waits for the guard and ends with its exit code; an interrupt is passed on
      guard       leads the new session; copies what the worker has to say to the terminal, and learns its exit code
        worker    no leader of its session, so no terminal can ever become its own; goes on when the others have gone

The worker tells the guard by a pipe (`caller`). When the pipe ends without the word that all is well, the worker has
ended or will: its exit status is the answer, whatever has killed it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

from ..core.errors import ConfigError
from .caller import READY, Caller, frames

#: Passed on by the command and the guard, as TERM: who no longer waits for a worker does not want it.
_CANCEL: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


def check_detaching() -> None:
    """Raises ConfigError where a worker must not go into the background."""
    if os.getpid() == 1:
        raise ConfigError(
            "--detach as process 1: the container would end with this command, and the worker with it; "
            "leave --detach away here"
        )


def detach() -> Caller:
    """Go on in the background; returns there only, with the way to tell the command how the start went.

    Standard streams are still the caller's (`Caller.let_go`). Before any thread is started.
    """
    _fill_standard()
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    guard = os.fork()
    if guard:
        os.close(read_end)
        os.close(write_end)
        _wait_as_command(guard)
    os.setsid()
    worker = os.fork()
    if worker:
        os.close(write_end)
        _guard(worker, read_end)
    os.close(read_end)
    return Caller(write_end)


def _fill_standard() -> None:
    """A caller may have closed any of the three; what we open must not take their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(fd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))


def _wait_as_command(guard: int) -> NoReturn:
    cancelled_by = _pass_on_to(guard)
    code = _exit_code(guard)
    # A worker that drained has ended well, but nobody works in the background.
    os._exit(128 + cancelled_by[0] if cancelled_by and not code else code)


def _guard(worker: int, pipe: int) -> NoReturn:
    _pass_on_to(worker)
    for kind, text in frames(pipe):
        with suppress(OSError):  # nobody reads it any more
            os.write(1 if kind == READY else 2, text)
        if kind == READY:
            os._exit(0)
    code = _exit_code(worker)
    if code > 128:
        with suppress(OSError, ValueError):
            name = signal.Signals(code - 128).name
            os.write(2, f"qworker: the worker was ended by {name} before it was ready\n".encode())
    os._exit(code)


def _pass_on_to(pid: int) -> list[int]:
    """Have who cancels this process cancel that one; returns the signals by which it has been, so far."""
    cancelled_by: list[int] = []

    def cancel(number: int, frame: FrameType | None) -> None:
        cancelled_by.append(number)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

    for number in _CANCEL:
        signal.signal(number, cancel)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CANCEL)
    return cancelled_by


def _exit_code(pid: int) -> int:
    """Wait for the end of a child; 128 and the signal's number if one has ended it, as shells say it."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code
