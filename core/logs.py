"""Log lines: one event, one line, one `write`, so that lines of several processes never mix.

Called by the command line, the master, the spawner and each child (`configure`, `set_process_name`, `set_task_info`)
and by whoever has something to say (`event`). The shapes of lines are in `loglines`.

A line is written with one `os.write` and without a lock: the kernel keeps the lines of all processes apart on a file
opened for appending, on a terminal, and (up to 4096 bytes) in a pipe; and a fork while another thread logs leaves no
lock behind.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from contextlib import suppress
from typing import IO, Any, Final

from .errors import ConfigError
from .journal import is_journal, with_priority
from .loglines import Context, Event, LogFormat, Render, TaskInfo, renderer

__all__ = ["LogFormat", "TaskInfo", "configure", "event", "parse_level", "set_process_name", "set_task_info"]

_LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
    "FATAL": logging.CRITICAL,
}
_STUCK_S: Final = 1.0

_context: Final = Context()


def configure(
    level: str | int = "INFO",
    *,
    format: LogFormat = "text",
    colour: bool | None = None,
    stream: IO[Any] | int | None = None,
    logfile: str | None = None,
    root: bool = True,
) -> None:
    """Send the lines of logger `qworker` to `logfile`, else to `stream` (default: stderr). The last call counts.

    With `root` the same handler also serves the root logger, unless the user's code has given it handlers: call it
    again after the application was imported to find out. `colour=None` means: on a terminal, unless NO_COLOR is set.
    Text for systemd's journal has priorities instead of times (`core.journal`).
    A log file that was moved away or deleted is opened anew within a second. Raises ConfigError for an unknown level
    or a log file that cannot be opened.
    """
    number = parse_level(level)
    sink = _FileSink(logfile) if logfile else _Sink(_descriptor(stream))
    if colour is None:
        colour = not os.environ.get("NO_COLOR") and sink.is_terminal
    to_journal = format == "text" and is_journal(sink.fd)
    render = renderer(format, _context, colour=colour, stamped=not to_journal)
    handler = LineHandler(sink, with_priority(render) if to_journal else render)
    _install(handler, number, root)


def event(
    logger: logging.Logger,
    level: int,
    name: str,
    *,
    text: str | None = None,
    exc_info: Any = None,
    **pairs: Any,
) -> None:
    """Log the event `name` with its pairs; the text format shows `text`, if given, instead of `name key=value`."""
    if not logger.isEnabledFor(level):
        return
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    elif exc_info is True:
        exc_info = sys.exc_info()
    # Not logger.log(): finding the calling line costs 2 of 7 µs, and the name of an event says more.
    logger.handle(logger.makeRecord(logger.name, level, "", 0, Event(name, pairs, text), (), exc_info))


def parse_level(level: str | int) -> int:
    """Return the number of a level's name (any case) or number. Raises ConfigError."""
    if isinstance(level, int) or level.isdigit():
        return int(level)
    try:
        return _LEVELS[level.upper()]
    except KeyError:
        raise ConfigError(f"unknown log level {level!r}; use debug, info, warning, error or critical") from None


def set_process_name(name: str) -> None:
    """Name this process in every line that it writes from now on (`MainProcess`, `Child-2`)."""
    _context.process = name


def set_task_info(info: TaskInfo | None) -> None:
    """Give the function that says which task (name, id) the calling thread is running, or None; asked once per line."""
    _context.task_info = info


class LineHandler(logging.Handler):
    """Writes each record as one line. Any thread, any process, no lock."""

    def __init__(self, sink: _Sink, render: Render) -> None:
        super().__init__()
        self._sink = sink
        self._render = render

    def createLock(self) -> None:  # noqa: N802 — logging's name
        """No lock: one write per line needs none."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Write the record unless a filter refuses it."""
        if self.filters and not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record. A message whose arguments do not fit it is reported on stderr, as logging does."""
        try:
            line = self._render(record)
        except Exception:  # the user's format string or __str__ may raise anything
            self.handleError(record)
            return
        self._sink.write(line.encode("utf-8", "backslashreplace") + b"\n")


class _Sink:
    """A descriptor that lines go to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """Its number, which stays."""
        return self._fd

    @property
    def is_terminal(self) -> bool:
        with suppress(OSError):
            return os.isatty(self._fd)
        return False

    def write(self, data: bytes) -> None:
        """Write all of it, normally in one call. A log that cannot be written must not stop work: the line is lost."""
        with suppress(OSError):
            written = self._write_some(data)
            while written < len(data):
                data = data[written:]
                written = self._write_some(data)

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            # Somebody who shares the terminal or pipe made it non-blocking, and it is full.
            if not select.select((), (self._fd,), (), _STUCK_S)[1]:
                raise
            return 0


class _FileSink(_Sink):
    """A file, appended to; looks once a second whether it still is the file of that name (logrotate)."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        try:
            super().__init__(self._open())
        except OSError as error:
            raise ConfigError(f"the log file {path} cannot be opened: {error.strerror}") from error
        self._identity = self._look()
        self._next_look = time.monotonic() + 1.0

    def write(self, data: bytes) -> None:
        if time.monotonic() >= self._next_look:
            self._follow()
        super().write(data)

    def _follow(self) -> None:
        self._next_look = time.monotonic() + 1.0
        if self._look() == self._identity:
            return
        with suppress(OSError):
            fresh = self._open()
            # dup2 keeps the number: a thread that is writing to it now writes to the old file or to the new one.
            os.dup2(fresh, self._fd, inheritable=False)
            os.close(fresh)
            self._identity = self._look()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _look(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = os.stat(self._path)
            return found.st_dev, found.st_ino
        return None


def _descriptor(stream: IO[Any] | int | None) -> int:
    if stream is None:
        return 2
    return stream if isinstance(stream, int) else stream.fileno()


def _install(handler: LineHandler, level: int, root: bool) -> None:
    ours, top = logging.getLogger("qworker"), logging.getLogger()
    for logger in (ours, top):
        for old in [h for h in logger.handlers if isinstance(h, LineHandler)]:
            logger.removeHandler(old)
    ours.addHandler(handler)
    ours.setLevel(level)
    ours.propagate = False
    _enable("qworker")
    if root and not top.handlers:
        top.addHandler(handler)
        top.setLevel(level)


def _enable(name: str) -> None:
    """Undo what `dictConfig(disable_existing_loggers=True)` in the user's code did to our own loggers."""
    for known, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (known == name or known.startswith(name + ".")):
            logger.disabled = False
