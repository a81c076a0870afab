"""From a call to an envelope: checks the options, chooses id, queue and times, encodes. Nothing is sent here.

Called by `App.send_task`, `Task.apply_async` and canvas, and by successors.py for what a finished task starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..core.clock import wall_time
from ..core.settings_values import nearest
from ..transports import Envelope
from . import tracing
from .context import running_context
from .encoding import RESERVED_HEADERS, encode_task
from .ids import new_id
from .message import MOST_PRIORITY
from .moments import parse_datetime, to_epoch, to_iso
from .routing import find_route

if TYPE_CHECKING:
    from .app import App
    from .task import Task


class Prepared(NamedTuple):
    """A call that is ready to be published. `retry`, `retry_policy`: whether and how to send again; None = as set.

    `span`: of OpenTelemetry, to be ended when it has been sent; None = there is none.
    """

    task_id: str
    envelope: Envelope
    retry: bool | None = None
    retry_policy: Mapping[str, Any] | None = None
    span: Any = None


class Lineage(NamedTuple):
    """Where a call comes from: the workflow's first task and the task that made the call."""

    root_id: str | None = None
    parent_id: str | None = None
    priority: int | None = None


def prepare(
    app: App,
    name: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    task: Task[..., Any] | None = None,
    lineage: Lineage | None = None,
    now: float | None = None,
    task_id: str | None = None,
    queue: str | None = None,
    routing_key: str | None = None,
    exchange: str | None = None,
    priority: int | None = None,
    countdown: float | None = None,
    eta: datetime | str | None = None,
    expires: float | timedelta | datetime | str | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    serializer: str | None = None,
    compression: str | None = None,
    reply_to: str | None = None,
    root_id: str | None = None,
    parent_id: str | None = None,
    link: Any = None,
    link_error: Any = None,
    headers: Mapping[str, Any] | None = None,
    stamped_headers: Sequence[str] | None = None,
    retries: int = 0,
    group_id: str | None = None,
    group_index: int | None = None,
    chain: Sequence[Mapping[str, Any]] | None = None,
    chord: Mapping[str, Any] | None = None,
    shadow: str | None = None,
    ignore_result: bool | None = None,
    replaced_task_nesting: int = 0,
    origin: str | None = None,
    argsrepr: str | None = None,
    kwargsrepr: str | None = None,
    unique: bool | None = None,
    unique_for: float | timedelta | None = None,
    retry: bool | None = None,
    retry_policy: Mapping[str, Any] | None = None,
    **properties: Any,
) -> Prepared:
    """Return the envelope for a call of task `name`. The options are those of `Task.apply_async`; see there.

    Raises TypeError or ValueError for options that make no sense, EncodeError for arguments that cannot be sent,
    ConfigError for an unknown serializer or a broken `task_routes`.
    """
    conf = app.conf
    now = wall_time() if now is None else now
    lineage = _current_lineage(app) if lineage is None else lineage
    kwargs = {} if kwargs is None else kwargs
    # A new id is unique without a lock.
    has_id = task_id is not None
    task_id = _checked_call(task_id, args, kwargs, headers)
    stamps = {stamp: properties.pop(stamp, None) for stamp in stamped_headers or ()}
    if properties:
        properties = checked_properties(properties)
    # A call that sets one limit need not know what the task or the settings say of the other.
    is_pair = (time_limit is None) == (soft_time_limit is None)
    if task is not None:
        expires = task.expires if expires is None else expires
        time_limit = task.time_limit if time_limit is None else time_limit
        soft_time_limit = task.soft_time_limit if soft_time_limit is None else soft_time_limit
        serializer = serializer or task.serializer
        compression = compression or task.compression
        unique = task.unique if unique is None else unique
        unique_for = task.unique_for if unique_for is None else unique_for
    needs_lock = bool(unique) and has_id
    if needs_lock:
        headers = {**(headers or {}), "unique": _seal(task_id, unique_for)}
    if is_pair and time_limit and soft_time_limit and soft_time_limit > time_limit:
        raise ValueError(f"soft_time_limit={soft_time_limit} is above time_limit={time_limit}; it is never reached")
    eta_text, due = _eta(eta, countdown, now, conf.timezone)
    expires_text, expiration_ms = _expires(expires, now, conf.timezone)
    queue, priority = _destination(
        app, name, args, kwargs, task, lineage, queue or _queue_of(routing_key, exchange), priority
    )
    root_id = root_id or lineage.root_id
    span, trace_headers = tracing.begin_send(app, name, task_id, queue, root_id)
    if trace_headers:
        headers = {**(headers or {}), **trace_headers}
    raw = encode_task(
        name,
        args,
        kwargs,
        task_id=task_id,
        queue=queue,
        priority=priority,
        eta=eta_text,
        expires=expires_text,
        expiration_ms=expiration_ms,
        retries=retries,
        group_id=group_id,
        group_index=group_index,
        root_id=root_id,
        parent_id=parent_id or lineage.parent_id,
        callbacks=as_list(link),
        errbacks=as_list(link_error),
        chain=chain,
        chord=chord,
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        shadow=shadow,
        ignore_result=ignore_result,
        replaced_task_nesting=replaced_task_nesting,
        stamps=stamps,
        headers=headers,
        properties=properties,
        reply_to=reply_to or app.oid,
        origin=origin,
        argsrepr=argsrepr,
        kwargsrepr=kwargsrepr,
        serializer=serializer or conf.task_serializer,
        compression=compression or conf.task_compression,
        published=now,
    )
    envelope = Envelope(queue, raw, priority, due, task_id=task_id, unique=needs_lock)
    return Prepared(task_id, envelope, retry, retry_policy, span)


def as_list(links: Any) -> list[Any] | None:
    """Return the signatures in `link=` or `link_error=`: None, one, or several."""
    if links is None:
        return None
    return [links] if isinstance(links, Mapping) or not isinstance(links, Iterable) else list(links)


def checked_properties(properties: dict[str, Any]) -> dict[str, Any]:
    """Return what of a call's further options becomes message properties. Raises TypeError for a misspelt option."""
    for name in properties:
        if name in _REFUSED:
            raise TypeError(f"{name}= {_REFUSED[name]}")
        hint = nearest(name, _OPTION_NAMES) if name not in _WITHOUT_EFFECT and name not in _PROPERTIES else ""
        if hint:
            raise TypeError(f"there is no option {name!r}" + hint)
    return {name: value for name, value in properties.items() if name not in _WITHOUT_EFFECT}


def _checked_call(task_id: str | None, args: Any, kwargs: Any, headers: Any) -> str:
    if not isinstance(args, list | tuple):
        raise TypeError(f"args must be a list or tuple, not {type(args).__name__}")
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a dict, not {type(kwargs).__name__}")
    if headers and not RESERVED_HEADERS.isdisjoint(headers):
        raise ValueError(f"headers= cannot replace {sorted(RESERVED_HEADERS.intersection(headers))}")
    if task_id is None:
        return new_id()
    if not isinstance(task_id, str) or not task_id:
        raise ValueError(f"task_id must be a string that is not empty, not {task_id!r}")
    return task_id


def _seal(task_id: str, unique_for: float | timedelta | None) -> str:
    from ..transports import make_seal  # few calls are unique

    lasts_s = unique_for.total_seconds() if isinstance(unique_for, timedelta) else unique_for
    if lasts_s is not None and not lasts_s > 0:
        raise ValueError(f"unique_for must be more than 0 seconds, not {unique_for!r}")
    return make_seal(task_id, lasts_s)


def _current_lineage(app: App) -> Lineage:
    context = running_context()
    if context is None or context.id is None:
        return Lineage()
    priority = context.delivery_info.get("priority") if app.conf.task_inherit_parent_priority else None
    return Lineage(context.root_id or context.id, context.id, priority)


def _queue_of(routing_key: str | None, exchange: str | None) -> str | None:
    if exchange and exchange != routing_key:
        raise ValueError(f"exchange={exchange!r}: only the default exchange is supported; name the queue instead")
    return routing_key


def _destination(
    app: App,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    task: Task[..., Any] | None,
    lineage: Lineage,
    queue: str | None,
    priority: int | None,
) -> tuple[str, int]:
    """The queue and the priority: from the call, the task, the routes, the settings, in this order."""
    if task is not None:
        queue = queue or task.queue or task.routing_key
        priority = task.priority if priority is None else priority
    if queue is None or priority is None:
        options = {"queue": queue, "priority": priority}
        route = find_route(app.conf.task_routes, name, args, kwargs, options)
        queue = queue or route.queue or app.conf.task_default_queue
        priority = route.priority if priority is None else priority
    for fallback in (lineage.priority, app.conf.task_default_priority, 0):
        priority = fallback if priority is None else priority
    if not isinstance(queue, str):
        queue = str(getattr(queue, "name", queue))  # Celery's own queue objects have a name
    return _checked_queue(queue), _checked_priority(priority)


def _checked_queue(queue: str) -> str:
    try:
        queue.encode()
    except UnicodeEncodeError:
        raise ValueError(f"queue {queue!r:.80} is not a proper text") from None
    return queue


def _checked_priority(priority: Any) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= MOST_PRIORITY:
        raise ValueError(f"priority must be a whole number from 0 (first) to 9, not {priority!r:.80}")
    return priority


def _eta(eta: datetime | str | None, countdown: float | None, now: float, zone: str) -> tuple[str | None, float | None]:
    """The `eta` header and the moment it means; a countdown wins and is written in UTC, an eta as it is."""
    try:
        if countdown:
            due = now + countdown
            return to_iso(due), due
        if eta is None:
            return None, None
        moment = parse_datetime(eta) if isinstance(eta, str) else eta
        return eta if isinstance(eta, str) else eta.isoformat(), to_epoch(moment, zone)
    except (OverflowError, ValueError, OSError) as problem:
        raise ValueError(f"countdown={countdown!r} eta={eta!r} is no usable time: {problem}") from None


def _expires(
    expires: float | timedelta | datetime | str | None, now: float, zone: str
) -> tuple[str | None, int | None]:
    """The `expires` header, and the `expiration` property: the milliseconds until then, never negative."""
    if expires is None:
        return None, None
    try:
        if isinstance(expires, timedelta):
            expires = expires.total_seconds()
        if isinstance(expires, int | float):
            return to_iso(now + expires), max(0, int(expires * 1000))
        moment = parse_datetime(expires) if isinstance(expires, str) else expires
        left_ms = max(0, int((to_epoch(moment, zone) - now) * 1000))
        return expires if isinstance(expires, str) else expires.isoformat(), left_ms
    except (OverflowError, ValueError, OSError) as problem:
        raise ValueError(f"expires={expires!r} is no usable time: {problem}") from None


_OPTION_NAMES: Final = frozenset(prepare.__annotations__) - {
    "app",
    "name",
    "task",
    "lineage",
    "now",
    "properties",
    "return",
}

# Options of Celery's that concern its connection handling, and change nothing here.
_WITHOUT_EFFECT: Final = frozenset(
    {"retry", "retry_policy", "delivery_mode", "mandatory", "immediate", "exchange_type", "route_name", "result_cls"}
)

_REFUSED: Final = {
    "producer": "is not supported: an App publishes over a connection of its own",
    "connection": "is not supported: an App publishes over a connection of its own",
    "publisher": "is not supported: an App publishes over a connection of its own",
    "concurrency_key": "is not supported yet in a call",
    "rate_limit": "is not supported yet in a call",
    **dict.fromkeys(("correlation_id", "delivery_info", "delivery_tag"), "is set by the message itself"),
    **dict.fromkeys(("body_encoding", "expiration"), "is set by the message itself"),
}

# Message properties that a transport or a consumer gives a meaning to; anything else is passed on as well, unless it
# looks like a misspelt option.
_PROPERTIES: Final = frozenset(
    {"MessageGroupId", "MessageDeduplicationId", "DelaySeconds", "delay_seconds", "message_attributes"}
)
