"""The program image of this process: how to start the same command anew in it, and what one image leaves to the next.

Exec keeps the process (its number, its place under a supervisor, its open standard streams) and ends every thread in
it, whatever that hangs in. So a worker whose consumer thread hangs need not leave nobody behind. Made by the command
line, for only there the command of the process is the worker; used by the master (`worker/hang.py`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final, NoReturn

from ..daemon import carried_over

#: From one image to the next. Read and removed at once: no child and no task shall see it.
VARIABLE: Final = "_QWORKER_LEGACY"
#: A process is replaced so often within this time. What hangs again and again is no accident.
MOST: Final = 3
WITHIN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Legacy:
    """What an image leaves to the next one in the same process.

    `replaced_at`: moments of replacements, on the monotonic clock. `signals`: descriptor of the pipe with signals that
    nobody has acted upon, -1 = none. `is_quiet`: told to fetch nothing. `size`: how many children there should be, 0 =
    as the command says. `owner`: in whose name messages are held that could not be given back, "" = in nobody's.
    `folder`: where the command was given, which the user that it has become may not be able to enter again.
    """

    pid: int = 0
    replaced_at: Sequence[float] = ()
    signals: int = -1
    is_quiet: bool = False
    size: int = 0
    owner: str = ""
    folder: str = ""


class Image:
    """The command, folder and environment that this process was started with, and its legacy. Main thread.

    `folder` is where relative paths of the command start.
    """

    def __init__(self, command: Sequence[str], folder: str, environment: Mapping[str, str], legacy: Legacy) -> None:
        self._command = list(command)
        self.folder = folder
        self._environment = dict(environment)
        self.legacy = legacy

    @classmethod
    def of_this_process(cls) -> Image | None:
        """To be called before anything has changed folder or environment. None: it could not be started again."""
        legacy = _read(os.environ.pop(VARIABLE, ""))
        try:
            folder = legacy.folder or os.getcwd()
        except FileNotFoundError:
            return None
        if len(sys.orig_argv) < 2:  # a program that was typed into the interpreter, or came through a pipe
            return None
        return cls([sys.executable, *sys.orig_argv[1:]], folder, os.environ, legacy)

    def may_replace(self, now: float) -> bool:
        """Whether there have not been too many replacements within the last minutes. `now`: monotonic clock."""
        return len(self._recent(now)) < MOST

    def replace(self, now: float, *, signals: int, is_quiet: bool, size: int, owner: str) -> NoReturn:
        """Start the command anew in this process. Raises OSError when that is not possible. Takes no lock."""
        legacy = Legacy(os.getpid(), [*self._recent(now), now], signals, is_quiet, size, owner, self.folder)
        with suppress(PermissionError):  # root's own, perhaps, which the user that it has become may not enter
            os.chdir(self.folder)
        environment = {**self._environment, VARIABLE: json.dumps(asdict(legacy))}
        os.execve(self._command[0], self._command, carried_over(environment))

    def _recent(self, now: float) -> list[float]:
        return [at for at in self.legacy.replaced_at if now - WITHIN_S < at <= now]


def _read(text: str) -> Legacy:
    """The legacy, if it is one and meant for this process."""
    try:
        legacy = Legacy(**json.loads(text))
    except (ValueError, TypeError):
        return Legacy()
    return legacy if legacy.pid == os.getpid() else Legacy()
