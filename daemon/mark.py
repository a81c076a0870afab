"""The mark of a process that is settled: it goes through an exec in place, so that nothing is done twice.

Written by `worker/image.py` just before the exec (`carried_over`), read by `setup`. It holds the process id, so that no
program that a task starts takes it for its own. Loads next to nothing, because every command loads this file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .caller import Caller

_VARIABLE: Final = "_QWORKER_SETTLED"


class _Place:
    """What this process knows of itself. `fd`: the pipe that an image before this one has left open, -1 = none."""

    def __init__(self) -> None:
        self.caller: Caller | None = None
        self.is_settled = False
        self.fd = -1

    def read(self) -> None:
        """Find out whether an image before this one has settled this very process."""
        pid, _, fd = os.environ.pop(_VARIABLE, "").partition(":")
        if pid == str(os.getpid()) and fd.lstrip("-").isdigit():
            self.is_settled, self.fd = True, int(fd)


place: Final = _Place()


def carried_over(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for a program that is about to replace this one: it finds itself settled.

    Also keeps the pipe to a caller who still waits open across the exec.
    """
    fd = place.caller.fd if place.caller is not None else None
    if fd is not None:
        os.set_inheritable(fd, True)
    return {**environ, _VARIABLE: f"{os.getpid()}:{-1 if fd is None else fd}"}
