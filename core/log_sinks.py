"""Where log lines go: a descriptor, or a file that is followed when it is moved away. Used by `core.logs` only.

The name of a file may hold `%i`, the number of a process: a child that is told its number goes on in a file of its own.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress

from .errors import ConfigError
from .log_outlet import Outlet


class Sink:
    """A descriptor that lines go to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._outlet = Outlet(fd)

    @property
    def fd(self) -> int:
        """Its number, which stays."""
        return self._fd

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at it."""
        with suppress(OSError):
            return os.isatty(self._fd)
        return False

    def write(self, data: bytes) -> int:
        """Write a line. A log that cannot be written must not stop work: the line is lost.

        Returns how many lines have been lost before this one, if there are any and this one was taken.
        """
        with suppress(OSError):
            if self._outlet.write(data):
                lost, self._outlet.lost = self._outlet.lost, 0
                return lost
        return 0

    def reopen(self) -> None:
        """Nothing to do."""

    def turn_to(self, index: int) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Let go of what was opened here; the descriptor itself is somebody else's."""
        self._outlet.close()


class FileSink(Sink):
    """A file, appended to; looks once a second, and when it is told to, whether it still is the file of that name.

    Standard streams that lead to the same file (a worker in the background) follow it.
    """

    def __init__(self, template: str, index: int = 0) -> None:
        self.template = os.path.abspath(template)
        self._path = file_of(self.template, index)
        try:
            super().__init__(self._open())
        except OSError as error:
            raise ConfigError(f"the log file {self._path} cannot be opened: {error.strerror}") from error
        self._identity = _identity(self._fd)
        self._streams = tuple(fd for fd in (1, 2) if _identity(fd) == self._identity)
        self._next_look = time.monotonic() + 1.0
        self._has_complained = False

    def write(self, data: bytes) -> int:
        """As any sink."""
        if time.monotonic() >= self._next_look:
            self.reopen()
        return super().write(data)

    def reopen(self) -> None:
        """Go on in the file of that name if it is another one by now. When it cannot be opened, stay in the old one."""
        self._next_look = time.monotonic() + 1.0
        if self._look() == self._identity:
            return
        try:
            self._go_on_in(self._open())
            self._has_complained = False
        except OSError as error:
            self._complain(error)

    def turn_to(self, index: int) -> None:
        """Go on in the file of the process `index`, if the name tells them apart. Raises ConfigError."""
        path = file_of(self.template, index)
        if path == self._path:
            return
        self._path = path
        try:
            self._go_on_in(self._open())
        except OSError as error:
            raise ConfigError(f"the log file {path} cannot be opened: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the file."""
        super().close()
        with suppress(OSError):
            os.close(self._fd)

    def _go_on_in(self, fresh: int) -> None:
        """dup2 keeps the numbers: a thread that is writing just now writes to the old file or to the new one."""
        os.dup2(fresh, self._fd, inheritable=False)
        for stream in self._streams:
            os.dup2(fresh, stream)
        os.close(fresh)
        self._identity = _identity(self._fd)

    def _complain(self, error: OSError) -> None:
        if not self._has_complained:
            self._has_complained = True
            from . import log_events, logs  # which import this module

            logs.say(
                logging.getLogger("qworker.core"),
                logging.WARNING,
                log_events.LOG_NOT_REOPENED,
                "the log file {path} was moved away and cannot be opened anew ({why}): lines still go to the old one",
                path=self._path,
                why=error.strerror,
            )

    def _open(self) -> int:
        return open_for_lines(self._path)

    def _look(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = os.stat(self._path)
            return found.st_dev, found.st_ino
        return None


def open_for_lines(path: str) -> int:
    """Open a log file, made if need be. Never waits: raises OSError for a named pipe that nobody reads, too."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    fd = os.open(path, flags | os.O_NONBLOCK, 0o644)
    os.set_blocking(fd, True)
    return fd


def file_of(template: str, index: int) -> str:
    """The log file of one process: `%i` is its number, 0 for all but children; `%I` the same as `-1`, or nothing."""
    return fill(template, {"i": str(index), "I": f"-{index}" if index else ""}, is_last=True)


def fill(template: str, words: Mapping[str, str], *, is_last: bool = False) -> str:
    """Put in what stands for `%n`, `%h` and so on. Letters that are not in `words` stay for the next one to fill.

    `%%` is a percent sign, made by the last one only.
    """

    def put(match: re.Match[str]) -> str:
        letter = match[1]
        if letter == "%":
            return "%" if is_last else "%%"
        return words.get(letter, match[0])

    return re.sub("%(.)", put, template)


def _identity(fd: int) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.fstat(fd)
        return found.st_dev, found.st_ino
    return None
