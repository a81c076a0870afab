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
import sys
import traceback
from contextlib import suppress
from typing import IO, Any, Final

from . import log_events
from .errors import ConfigError, SoftTimeLimitExceeded
from .journal import is_journal, with_priority
from .log_sinks import FileSink, Sink
from .loglines import Context, Event, LogFormat, Patterns, Render, TaskInfo, renderer
from .secrets import scrub

__all__ = [
    "LogFormat",
    "Patterns",
    "TaskInfo",
    "become",
    "configure",
    "event",
    "hand_over",
    "name_tasks_in_records",
    "parse_level",
    "reopen",
    "say",
    "set_process_name",
    "set_task_info",
]

_logger = logging.getLogger("qworker.core")

_LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
    "FATAL": logging.CRITICAL,
}

_context: Final = Context()


def configure(
    level: str | int = "INFO",
    *,
    format: LogFormat = "text",
    colour: bool | None = None,
    stream: IO[Any] | int | None = None,
    logfile: str | None = None,
    root: bool = True,
    hijack: bool = False,
    patterns: Patterns | None = None,
) -> None:
    """Send the lines of logger `qworker` to `logfile`, else to `stream` (default: stderr). The last call counts.

    With `root` the same handler also serves the root logger, unless the user's code has given it handlers: call it
    again after the application was imported to find out. With `hijack` those are thrown away. `patterns` are formats
    of logging's for text. `colour=None` means: on a terminal, unless NO_COLOR is set.
    Text for systemd's journal has priorities instead of times (`core.journal`).
    A log file that was moved away or deleted is opened anew within a second; `%i` in its name is the number of the
    process (`become`). Raises ConfigError for an unknown level or a log file that cannot be opened.
    """
    number = parse_level(level)
    sink = _file_sink(logfile) if logfile else Sink(_descriptor(stream))
    if colour is None:
        colour = not os.environ.get("NO_COLOR") and sink.is_terminal
    to_journal = format == "text" and is_journal(sink.fd)
    render = renderer(format, _context, colour=colour, stamped=not to_journal, patterns=patterns)
    handler = LineHandler(sink, with_priority(render) if to_journal else render)
    if hijack:
        logging.getLogger().handlers.clear()
    _install(handler, number, root)


def hand_over(level: int) -> None:
    """The user's code has set logging up: take our handlers away and let our lines go where all others go."""
    _remove_ours()
    ours = logging.getLogger("qworker")
    ours.setLevel(level)
    ours.propagate = True
    _enable("qworker")


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
    try:
        logger.handle(logger.makeRecord(logger.name, level, "", 0, Event(name, pairs, text), (), exc_info))
    except Exception:  # of a user's filter, handler or record factory: nothing ends because it is logged
        _report()


def say(logger: logging.Logger, level: int, name: str, sentence: str, /, *, exc_info: Any = None, **pairs: Any) -> None:
    """Log the event `name`: people read `sentence`, with the pairs put into it by `str.format`."""
    if logger.isEnabledFor(level):
        event(logger, level, name, text=sentence.format_map(pairs), exc_info=exc_info, **pairs)


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


def become(name: str, index: int) -> None:
    """As `set_process_name`; and go on in this process's own log file if the files' name tells them apart."""
    _context.process, _context.index = name, index
    for sink in _sinks():
        sink.turn_to(index)


def reopen() -> None:
    """Open the log file anew now if it was moved away. Any thread, also in the middle of a line."""
    for sink in _sinks():
        sink.reopen()


def name_tasks_in_records() -> None:
    """Give every record of this process `task_name` and `task_id`, for handlers that are not ours."""
    make = logging.getLogRecordFactory()

    def make_named(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        task = _context.task_info() if _context.task_info is not None else None
        record.task_name, record.task_id = task or ("???", "???")
        return record

    logging.setLogRecordFactory(make_named)


def set_task_info(info: TaskInfo | None) -> None:
    """Give the function that says which task (name, id) the calling thread is running, or None; asked once per line."""
    _context.task_info = info


class LineHandler(logging.Handler):
    """Writes each record as one line. Any thread, any process, no lock."""

    def __init__(self, sink: Sink, render: Render) -> None:
        super().__init__()
        self.sink = sink
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
        except SoftTimeLimitExceeded:  # it came just now, for the task that writes this line
            raise
        except Exception:  # the user's format string or __str__ may raise anything
            self.handleError(record)
            return
        if lost := self.sink.write(scrub(line).encode("utf-8", "backslashreplace") + b"\n"):
            self._tell(lost)

    def _tell(self, lost: int) -> None:
        say(
            _logger,
            logging.WARNING,
            log_events.LOG_LINES_LOST,
            "{lines} lines of this process are missing here: the log did not take them within a second",
            lines=lost,
        )


def _report() -> None:
    """As logging reports what goes wrong in a handler."""
    if logging.raiseExceptions:
        with suppress(OSError, ValueError, AttributeError):
            traceback.print_exc()


def _descriptor(stream: IO[Any] | int | None) -> int:
    if stream is None:
        return 2
    return stream if isinstance(stream, int) else stream.fileno()


def _file_sink(template: str) -> FileSink:
    """The one that is in use already, if it is this file: another thread may be writing to it just now."""
    for sink in _sinks():
        if isinstance(sink, FileSink) and sink.template == os.path.abspath(template):
            return sink
    return FileSink(template, _context.index)


def _install(handler: LineHandler, level: int, root: bool) -> None:
    _remove_ours(keep=handler.sink)
    ours, top = logging.getLogger("qworker"), logging.getLogger()
    ours.addHandler(handler)
    ours.setLevel(level)
    ours.propagate = False
    _enable("qworker")
    if root and not top.handlers:
        top.addHandler(handler)
        top.setLevel(level)


def _remove_ours(keep: Sink | None = None) -> None:
    sinks = [sink for sink in _sinks() if sink is not keep]
    for logger in (logging.getLogger("qworker"), logging.getLogger()):
        for old in [h for h in logger.handlers if isinstance(h, LineHandler)]:
            logger.removeHandler(old)
    for sink in sinks:
        sink.close()


def _sinks() -> list[Sink]:
    """Of our handlers; that of the root logger has the same."""
    return [h.sink for h in logging.getLogger("qworker").handlers if isinstance(h, LineHandler)]


def _enable(name: str) -> None:
    """Undo what `dictConfig(disable_existing_loggers=True)` in the user's code did to our own loggers."""
    for known, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (known == name or known.startswith(name + ".")):
            logger.disabled = False
