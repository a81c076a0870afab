"""Results as they are stored: the JSON object of Celery's result backend, with its keys in Celery's order.

Called by the executor at the end of each run and by `Task.update_state`. Everything here is a function of its
arguments and the clock. A result that cannot be encoded raises EncodeError; the executor then stores a failure that
says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from ..core.errors import TaskRevokedError
from .context import Context
from .failures import describe
from .moments import UTC
from .reprs import short_repr
from .typed_json import DecodeError, EncodeError, dumps, loads, quote


class MetaFields(NamedTuple):
    """What a meta says besides state and result. `children` None is null: written outside of a run."""

    group_id: str | None = None
    parent_id: str | None = None
    children: list[Any] | None = None
    extended: Mapping[str, Any] | None = None


NOTHING: Final = MetaFields()


def fields_of(context: Context, *, extended: bool = False) -> MetaFields:
    """Return the fields for a run; `extended` is the setting `result_extended`."""
    message = context.message
    return MetaFields(
        None if message is None else message.text("group"),
        None if message is None else message.text("parent_id"),
        context.__dict__.get("children") or [],
        extended_fields(context) if extended else None,
    )


def extended_fields(context: Context) -> dict[str, Any]:
    """Return what `result_extended` adds."""
    fields = {
        "name": context.task,
        "args": context.args,
        "kwargs": context.kwargs,
        "worker": context.hostname,
        "retries": context.retries,
        "queue": context.delivery_info.get("routing_key"),
    }
    stamps, names = context.stamps, context.stamped_headers
    if isinstance(stamps, dict) and isinstance(names, list) and stamps:
        fields["stamped_headers"] = names
        fields.update({name: value for name, value in stamps.items() if name in names and name not in fields})
    return fields


def success_meta(task_id: str, result: Any, fields: MetaFields = NOTHING, *, now: datetime | None = None) -> bytes:
    """Return the meta of a run that returned `result`. Raises EncodeError."""
    return _meta("SUCCESS", dumps(result), None, _done(now), task_id, fields)


def failure_meta(
    task_id: str,
    exc: BaseException,
    traceback: str | None = None,
    fields: MetaFields = NOTHING,
    *,
    now: datetime | None = None,
) -> bytes:
    """Return the meta of a run that raised `exc`. Never raises: what cannot be encoded is represented."""
    return _meta("FAILURE", dumps(describe(exc)), traceback, _done(now), task_id, fields)


def revoked_meta(task_id: str, reason: str, fields: MetaFields = NOTHING, *, now: datetime | None = None) -> bytes:
    """Return the meta of a message that was not run (`expired`, `revoked`) or was cut off (`terminated`)."""
    return _meta("REVOKED", dumps(describe(TaskRevokedError(reason))), None, _done(now), task_id, fields)


def retry_meta(task_id: str, exc: BaseException | None, traceback: str | None, fields: MetaFields = NOTHING) -> bytes:
    """Return the meta of a run that is to be repeated because of `exc`; not a final state."""
    children = [*(fields.children or ()), task_child(task_id)]
    described = "null" if exc is None else dumps(describe(exc))
    return _meta("RETRY", described, traceback, "null", task_id, fields._replace(children=children))


def started_meta(task_id: str, pid: int, hostname: str, fields: MetaFields = NOTHING) -> bytes:
    """Return the meta of a run that has begun (`track_started`)."""
    return _meta("STARTED", dumps({"pid": pid, "hostname": hostname}), None, "null", task_id, fields)


def state_meta(task_id: str, state: str, meta: Any, fields: MetaFields = NOTHING) -> bytes:
    """Return the meta of a state of the task's own. Raises EncodeError."""
    return _meta(state, dumps(meta), None, "null", task_id, fields)


def task_child(task_id: str) -> list[Any]:
    """Return one task as it stands in `children`."""
    return [[task_id, None], None]


def group_child(group_id: str, task_ids: list[str]) -> list[Any]:
    """Return a group as it stands in `children`."""
    return [[group_id, None], [task_child(task_id) for task_id in task_ids]]


def _done(now: datetime | None) -> str:
    return f'"{(now or datetime.now(UTC)).isoformat()}"'


def _meta(status: str, result: str, traceback: str | None, date_done: str, task_id: str, fields: MetaFields) -> bytes:
    group_id, parent_id, children, extended = fields
    more = ""
    if group_id:
        more += f', "group_id": {quote(group_id)}'
    if parent_id:
        more += f', "parent_id": {quote(parent_id)}'
    if extended:
        more += "".join(f", {quote(name)}: {_safe(value)}" for name, value in extended.items())
    return (
        f'{{"status": {quote(status)}, "result": {result}, '
        f'"traceback": {"null" if traceback is None else quote(traceback)}, '
        f'"children": {"[]" if children == [] else dumps(children)}, "date_done": {date_done}{more}, '
        f'"task_id": {quote(task_id)}}}'
    ).encode()


def _safe(value: Any) -> str:
    """`value` as JSON, or its representation.

    A pickled message may hold what JSON cannot, and a header what only looks like a typed object.
    """
    try:
        text = dumps(value)
        if "__type__" in text:
            loads(text)
        return text
    except (EncodeError, DecodeError, RecursionError):
        return quote(short_repr(value))
