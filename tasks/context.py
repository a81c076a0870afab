"""The request: what a running task can ask about its own run, and which task runs in this thread now.

The executor enters a `Context` for each message; `Task.__call__` and `Task.apply` enter one for a direct or eager run.
The stack is a context variable, so each thread, and later each coroutine, has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final

from .encoding import RESERVED_HEADERS
from .interrupts import interrupts
from .message import Message

if TYPE_CHECKING:
    from ..core.errors import Retry
    from .task import Task

StateSink = Callable[[str, str, bytes], None]

#: Set by a worker's child before its first task: takes (task id, state, encoded meta) of a state that is not final and
#: has it stored. None elsewhere: then there is nowhere to send it.
state_sink: StateSink | None = None

#: Set likewise: takes the context of the run and the state that it wants to resume from, and has the master keep it.
checkpoint_sink: Callable[[Context, Any], None] | None = None


#: Where a message carries the state that `Task.checkpoint` has kept.
CHECKPOINT_HEADER: Final = "qworker_checkpoint"
#: A checkpoint may be None: this is the absence of one.
NO_CHECKPOINT: Final = object()


class Context:
    """One run of a task. Read what it says; `children` and `pending_retry` are for the executor.

    Made for every message, and most tasks never look at it: fields are taken from the message when first asked for.
    The names are Celery's: `id`, `task`, `args`, `kwargs`, `retries`, `eta`, `expires` (ISO text), `root_id`,
    `parent_id`, `group`, `group_index`, `correlation_id`, `reply_to`, `timelimit`, `headers` (the caller's own, or
    None), `properties`, `delivery_info`, `hostname`, `is_eager`, `called_directly`, …
    """

    id: str | None
    task: str | None
    args: Any
    kwargs: Any
    retries: int
    eta: str | None
    expires: str | None
    root_id: str | None
    parent_id: str | None
    group: str | None
    group_index: int | None
    correlation_id: str | None
    reply_to: str | None
    origin: str | None
    shadow: str | None
    ignore_result: bool | None
    replaced_task_nesting: int
    timelimit: Any
    time_limit: float | None
    soft_time_limit: float | None
    headers: dict[str, Any] | None
    properties: dict[str, Any]
    callbacks: Any
    errbacks: Any
    chain: Any
    chord: Any
    stamped_headers: Any
    stamps: Any
    delivery_info: dict[str, Any]
    children: list[Any]

    called_directly = True
    is_eager = False
    hostname = ""
    queue = ""
    redelivered = False
    #: Set while a worker's call passes through a subclass's `__call__`; see `Task.body`.
    is_entering = False
    #: What `Task.retry(throw=False)` has asked for.
    pending_retry: Retry | None = None
    #: What this run has given to `Task.checkpoint`.
    saved_checkpoint: Any = NO_CHECKPOINT
    #: The message that is being run; None in a direct or eager run.
    message: Message | None = None

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @classmethod
    def for_message(cls, message: Message, *, hostname: str, queue: str, redelivered: bool = False) -> Context:
        """Return the context of a run that a worker has received. `queue` is where the message was taken from."""
        context = cls.__new__(cls)
        context.__dict__ = {
            "message": message,
            "id": message.id,
            "hostname": hostname,
            "queue": queue,
            "redelivered": redelivered,
            "called_directly": False,
        }
        return context

    @property
    def stopping(self) -> bool:
        """Whether the worker has begun to stop: a long task should finish soon, or checkpoint."""
        return interrupts.is_stopping()

    @property
    def checkpoint(self) -> Any:
        """What an earlier run of this message, cut by a stop, gave to `Task.checkpoint`; None if there was none."""
        return None if self.message is None else self.message.headers.get(CHECKPOINT_HEADER)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the field `name`, or `default` if there is none of that name."""
        return getattr(self, name, default)

    def update(self, *args: Any, **fields: Any) -> None:
        """Set fields, as `dict.update` does."""
        self.__dict__.update(*args, **fields)

    def __getattr__(self, name: str) -> Any:
        try:
            read, default = _FIELDS[name]
        except KeyError:
            raise AttributeError(f"a request has no field {name!r}") from None
        value = self.__dict__[name] = default() if self.message is None else read(self, self.message)
        return value

    def __repr__(self) -> str:
        return f"<Context: {self.task}[{self.id}] retries={self.retries}>"


class _Frame:
    """One entry of the stack: `task` runs with `context`, called from `parent`."""

    __slots__ = ("context", "parent", "task")

    def __init__(self, task: Task[..., Any], context: Context, parent: _Frame | None) -> None:
        self.task = task
        self.context = context
        self.parent = parent


_top: ContextVar[_Frame | None] = ContextVar("qworker_running", default=None)

Entered = Token["_Frame | None"]


def enter(task: Task[..., Any], context: Context) -> Entered:
    """Note that `task` runs with `context` from now on; give the answer to `leave` when it has ended."""
    return _top.set(_Frame(task, context, _top.get()))


def leave(entered: Entered) -> None:
    """Undo `enter`."""
    _top.reset(entered)


def running_task() -> Task[..., Any] | None:
    """Return the task that runs in this thread now, the innermost one, or None."""
    frame = _top.get()
    return None if frame is None else frame.task


def running_context() -> Context | None:
    """Return the context of the run that this thread is in, the innermost that is not a direct call, or None."""
    frame = _top.get()
    while frame is not None and frame.context.called_directly:
        frame = frame.parent
    return None if frame is None else frame.context


def context_of(task: Task[..., Any]) -> Context | None:
    """Return the context of the innermost run of `task` in this thread, or None."""
    frame = _top.get()
    while frame is not None and frame.task is not task:
        frame = frame.parent
    return None if frame is None else frame.context


def task_info() -> tuple[str, str] | None:
    """Return (name, id) of the task that a log line is about, or None. For `core.logs`."""
    frame = _top.get()
    while frame is not None and frame.context.id is None:
        frame = frame.parent
    return None if frame is None else (frame.task.name, frame.context.id or "")


class CurrentTask:
    """Stands for the task that runs in this thread; false when none does."""

    def __getattr__(self, name: str) -> Any:
        task = running_task()
        if task is None:
            raise AttributeError(f"current_task.{name}: no task runs in this thread")
        return getattr(task, name)

    def __bool__(self) -> bool:
        return running_task() is not None

    def __eq__(self, other: object) -> bool:
        return running_task() is other

    def __hash__(self) -> int:
        return hash(running_task())

    def __repr__(self) -> str:
        return repr(running_task())


current_task: Final = CurrentTask()


def _none() -> None:
    return None


def _header(name: str, default: Callable[[], Any] = _none) -> tuple[_Reader, Callable[[], Any]]:
    return (lambda _context, message: message.headers.get(name)), default


def _text(name: str) -> tuple[_Reader, Callable[[], Any]]:
    return (lambda _context, message: message.text(name)), _none


def _embedded(name: str) -> tuple[_Reader, Callable[[], Any]]:
    return (lambda _context, message: message.embed.get(name)), _none


def _property(name: str) -> tuple[_Reader, Callable[[], Any]]:
    return (lambda _context, message: message.properties.get(name)), _none


def _own_headers(_context: Context, message: Message) -> dict[str, Any] | None:
    return {name: value for name, value in message.headers.items() if name not in RESERVED_HEADERS} or None


def _delivery_info(context: Context, message: Message) -> dict[str, Any]:
    queue = context.queue or message.queue
    return {
        "exchange": "",
        "routing_key": queue,
        "priority": message.priority,
        "redelivered": context.redelivered,
    }


_Reader = Callable[[Context, Message], Any]

# Each field: how it is read from a message, and what it is in a run without one.
_FIELDS: Final[Mapping[str, tuple[_Reader, Callable[[], Any]]]] = {
    "id": (lambda _context, message: message.id, _none),
    "task": (lambda _context, message: message.task, _none),
    "args": (lambda _context, message: message.args, tuple),
    "kwargs": (lambda _context, message: message.kwargs, dict),
    "retries": (lambda _context, message: message.retries, int),
    "properties": (lambda _context, message: message.properties, dict),
    "timelimit": _header("timelimit"),
    "time_limit": (lambda _context, message: message.time_limits[0], _none),
    "soft_time_limit": (lambda _context, message: message.time_limits[1], _none),
    "headers": (_own_headers, _none),
    "delivery_info": (_delivery_info, dict),
    "children": (lambda _context, _message: [], list),
    "replaced_task_nesting": (lambda _context, message: message.headers.get("replaced_task_nesting") or 0, int),
    **{name: _property(name) for name in ("correlation_id", "reply_to")},
    **{name: _embedded(name) for name in ("callbacks", "errbacks", "chain", "chord")},
    **{name: _text(name) for name in ("root_id", "parent_id", "group")},
    **{name: _header(name) for name in ("eta", "expires", "group_index")},
    **{name: _header(name) for name in ("origin", "shadow", "ignore_result", "stamped_headers", "stamps")},
}
