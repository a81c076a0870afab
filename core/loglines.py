"""How one log record becomes one line: text in Celery's shape, JSON, or logfmt. Used by `core.logs` only.

A renderer is a function from a record to a line without its end. The speed matters for the text and JSON of
`succeeded` lines, one per task; the part of the time stamp that changes once a second is kept.
"""

from __future__ import annotations

import json
import math
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from logging import Formatter, LogRecord
from typing import Any, Final, Literal, NamedTuple

from .errors import ConfigError

LogFormat = Literal["text", "json", "logfmt"]
TaskInfo = Callable[[], "tuple[str, str] | None"]
Render = Callable[[LogRecord], str]

_PLAIN: Final = re.compile(r"[^\x00-\x20\"=\\\x7f]+").fullmatch
_COLOURS: Final = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_RESET: Final = "\x1b[0m"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# What every record has; anything else came with `extra=` and belongs into a structured line.
_STANDARD: Final = frozenset(vars(LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
#: Names of a structured line that it does not take from a record: what came with `extra=` must not hide a level.
_OURS: Final = frozenset({"ts", "level", "logger", "pid", "event", "task", "id", "exception"})


class Event(str):
    """The `msg` of an event's record: a name, key=value pairs, and perhaps a sentence for people.

    It is the text that people read, because filters and handlers of users take a record's `msg` for a text.
    """

    __slots__ = ("name", "pairs", "text")

    name: str
    pairs: Mapping[str, Any]
    text: str | None

    def __new__(cls, name: str, pairs: Mapping[str, Any], text: str | None) -> Event:
        """As above."""
        words = text if text is not None else name + "".join(f" {key}={_value(value)}" for key, value in pairs.items())
        event = super().__new__(cls, words)
        event.name, event.pairs, event.text = name, pairs, text
        return event


class Context:
    """What a line says about its process: a name, a number, and which task runs there now (name and id)."""

    __slots__ = ("index", "process", "task_info")

    def __init__(self) -> None:
        self.process = "MainProcess"
        self.index = 0
        self.task_info: TaskInfo | None = None


class Patterns(NamedTuple):
    """Formats in the words of logging.Formatter: for any line and for lines of a running task, and their times'."""

    line: str
    of_task: str
    time: str | None
    time_of_task: str | None


def renderer(
    kind: LogFormat, context: Context, *, colour: bool, stamped: bool = True, patterns: Patterns | None = None
) -> Render:
    """Return the renderer of that name.

    `colour`, `stamped` (the time stands in each line) and `patterns` are for text only.
    """
    if kind == "json":
        return _json_renderer(context)
    if kind == "logfmt":
        return _logfmt_renderer(context)
    if patterns is not None:
        return _coloured(_patterned_renderer(context, patterns)) if colour else _patterned_renderer(context, patterns)
    return _text_renderer(context, colour, stamped)


def _text_renderer(context: Context, colour: bool, stamped: bool) -> Render:
    stamp = _Seconds("%Y-%m-%d %H:%M:%S", time.localtime)

    def render(record: LogRecord) -> str:
        task = _task_of(record, context)
        about = f"{task[0]}[{task[1]}]: " if task else ""
        time_of_day = f"{stamp(record.created)},{int(record.msecs):03d}: " if stamped else ""
        text = record.getMessage() + _trouble(record)
        if isinstance(record.msg, Event):
            text = _tame(text)
        line = f"[{time_of_day}{record.levelname}/{context.process}] {about}{text}"
        start = _COLOURS.get(record.levelname) if colour else None
        return f"{start}{line}{_RESET}" if start else line

    return render


def _patterned_renderer(context: Context, patterns: Patterns) -> Render:
    plain = _formatter("worker_log_format", patterns.line, patterns.time)
    of_task = _formatter("worker_task_log_format", patterns.of_task, patterns.time_of_task)

    def render(record: LogRecord) -> str:
        task = _task_of(record, context)
        record.processName = context.process
        record.task_name, record.task_id = task or ("???", "???")
        return (of_task if task else plain).format(record)

    return render


def _formatter(setting: str, pattern: str, time: str | None) -> Formatter:
    """Raises ConfigError for a pattern that is none."""
    try:
        return Formatter(pattern, time)
    except ValueError as error:
        raise ConfigError(f"{setting} {pattern!r} is no format of logging's, as %(message)s is: {error}") from None


def _coloured(render: Render) -> Render:
    def render_coloured(record: LogRecord) -> str:
        start = _COLOURS.get(record.levelname)
        return f"{start}{render(record)}{_RESET}" if start else render(record)

    return render_coloured


def _json_renderer(context: Context) -> Render:
    fields = _field_reader(context)
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=repr).encode

    def render(record: LogRecord) -> str:
        found = dict(fields(record))
        try:
            return encode(found)
        except (TypeError, ValueError, RecursionError):  # what JSON has no word for, came with `extra=`
            return encode({key: _plain(value) for key, value in found.items()})

    return render


def _logfmt_renderer(context: Context) -> Render:
    fields = _field_reader(context)
    return lambda record: " ".join(f"{_key(key)}={_value(value)}" for key, value in dict(fields(record)).items())


def _field_reader(context: Context) -> Callable[[LogRecord], Iterator[tuple[str, Any]]]:
    stamp = _Seconds("%Y-%m-%dT%H:%M:%S", time.gmtime)

    def fields(record: LogRecord) -> Iterator[tuple[str, Any]]:
        yield "ts", f"{stamp(record.created)}.{int(record.msecs):03d}Z"
        yield "level", record.levelname
        yield "logger", record.name
        yield "process", context.process
        yield "pid", record.process
        yield from _message_fields(record)
        task = _task_of(record, context)
        if task:
            yield "task", task[0]
            yield "id", task[1]
        trouble = _trouble(record)
        if trouble:
            yield "exception", trouble[1:]

    return fields


def _message_fields(record: LogRecord) -> Iterator[tuple[str, Any]]:
    event = record.msg
    if isinstance(event, Event):
        yield "event", event.name
        if event.text is not None:
            yield "message", event.text
        yield from event.pairs.items()
        return
    yield "message", record.getMessage()
    for key, value in vars(record).items():
        if key not in _STANDARD:
            yield (f"{key}_" if key in _OURS else key), value


def _plain(value: Any) -> Any:
    """The value, or its text if it is not plain, or a float that is no number."""
    is_plain = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else repr(value)


def _task_of(record: LogRecord, context: Context) -> tuple[str, str] | None:
    if context.task_info is None:
        return None
    if isinstance(record.msg, Event) and "id" in record.msg.pairs:
        return None  # the event already says which task it is about
    return context.task_info()


def _trouble(record: LogRecord) -> str:
    text = ""
    if record.exc_info and record.exc_info[0] is not None:
        text = "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
    if record.stack_info:
        text += "\n" + record.stack_info
    return text


def _tame(text: str) -> str:
    """A task's traceback may quote what a stranger has sent: no terminal shall obey it. Users' lines are theirs."""
    return text if text.isprintable() else _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class _Seconds:
    """The time stamp down to the second, formatted once per second."""

    __slots__ = ("_break_down", "_format", "_second", "_text")

    def __init__(self, form: str, break_down: Callable[[float], time.struct_time]) -> None:
        self._format = form
        self._break_down = break_down
        self._second = -1
        self._text = ""

    def __call__(self, moment: float) -> str:
        second = int(moment)
        if second != self._second:
            self._text = time.strftime(self._format, self._break_down(second))
            self._second = second
        return self._text


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else str(value)
    return text if _PLAIN(text) else json.dumps(text, ensure_ascii=False)


def _key(key: str) -> str:
    return key if _PLAIN(key) else re.sub(r"[\x00-\x20\"=\\\x7f]", "_", key)
