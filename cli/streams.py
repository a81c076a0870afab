"""Standard streams of a command: closed from the start, or taking nothing more. Called by `main` and the commands."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def have_streams() -> None:
    """Standard streams that are closed (`2>&-`, some supervisors) become /dev/null.

    Their numbers would go to the next sockets, and what a task prints into those; and nobody expects that a stream is
    None. The lowest number that is free is the one that is missing.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 - stays open
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def abandon(fd: int) -> None:
    """What this stream has not taken (a full disk, a reader that has gone) goes to /dev/null when it is tried again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), fd)


def leave(code: int) -> NoReturn:
    """Exit with this code, which the interpreter would make 120 if a stream did not take what it still holds."""
    for fd, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):  # ValueError: closed
            abandon(fd)
    sys.exit(code)
