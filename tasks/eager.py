"""Running a task in the calling process as a worker would: `Task.apply`, and every call under `task_always_eager`.

For tests and debugging. Retries follow at once, without their wait; callbacks run in the same way; nothing is stored. A
chain runs link by link (canvas.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core.errors import Ignore, MaxRetriesExceededError, Reject, Retry
from . import context as contexts
from . import serializers
from .context import Context
from .ids import new_id
from .publishing import as_list
from .retrying import plan_of
from .tracebacks import text_of

if TYPE_CHECKING:
    from .task import Task

R = TypeVar("R")


class EagerResult(Generic[R]):
    """The result of a task that has already run here; what AsyncResult offers, without waiting."""

    def __init__(self, task_id: str, status: str, result: Any, traceback: str | None = None) -> None:
        self.id = task_id
        self.status = self.state = status
        self.result = result
        self.traceback = traceback

    def get(self, timeout: float | None = None, propagate: bool = True, **options: Any) -> R:
        """Return the value, or raise the task's exception unless `propagate` is false."""
        if propagate and isinstance(self.result, BaseException) and not self.successful():
            raise self.result
        value: R = self.result
        return value

    wait = get

    @property
    def task_id(self) -> str:
        """The same as `id`."""
        return self.id

    def ready(self) -> bool:
        """Always true."""
        return True

    def successful(self) -> bool:
        """Whether the task succeeded."""
        return self.status == "SUCCESS"

    def failed(self) -> bool:
        """Whether the task failed."""
        return self.status == "FAILURE"

    def forget(self) -> None:
        """Nothing is stored, so there is nothing to do."""

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id} {self.status}>"


def run_eagerly(
    task: Task[..., R],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    task_id: str | None = None,
    retries: int = 0,
    throw: bool = False,
    link: Any = None,
    link_error: Any = None,
    headers: Mapping[str, Any] | None = None,
) -> EagerResult[R]:
    """Run `task` now, again for each retry it asks for, and return its result; with `throw` raise its exception."""
    task_id = task_id or new_id()
    parent = contexts.running_context()
    while True:
        context = Context(
            id=task_id,
            task=task.name,
            args=args,
            kwargs=kwargs,
            retries=retries,
            root_id=(parent and (parent.root_id or parent.id)) or task_id,
            parent_id=parent and parent.id,
            headers=dict(headers) if headers else None,
            hostname="eager",
            delivery_info={"exchange": "", "routing_key": "", "priority": 0, "is_eager": True},
            is_eager=True,
            called_directly=False,
        )
        result = _run_once(task, context, throw)
        if not isinstance(result, Retry):
            break
        plan = plan_of(result, task, context, now=0.0)
        retries = plan.retries
        args = args if plan.args is None else plan.args
        kwargs = kwargs if plan.kwargs is None else plan.kwargs
    _call_links(result, task_id, link, link_error)
    return result


def through_the_wire(args: Sequence[Any], kwargs: Mapping[str, Any], serializer: str) -> tuple[Any, Any]:
    """Return the arguments as a worker would see them. Raises EncodeError for what could not be sent."""
    encoded = serializers.dumps([list(args), dict(kwargs)], serializer)
    args, kwargs = serializers.loads(encoded.data, encoded.content_type, encoded.content_encoding)
    return tuple(args), kwargs


def _run_once(task: Task[..., R], context: Context, throw: bool) -> EagerResult[R] | Retry:
    task_id, args, kwargs = str(context.id), context.args, context.kwargs
    entered = contexts.enter(task, context)
    try:
        if "before_start" in task.handlers:
            task.before_start(task_id, args, kwargs)
        value = task.body(*args, **kwargs)
    except Retry as retry:
        return _retry(task, context, retry, throw)
    except Ignore as ignore:
        return EagerResult(task_id, "IGNORED", ignore)
    except Reject as reject:
        return EagerResult(task_id, "REJECTED", reject)
    # Whatever a task raises is its outcome; what is no Exception (KeyboardInterrupt) concerns the caller's process.
    except Exception as problem:
        return _failure(task, context, problem, throw)
    finally:
        contexts.leave(entered)
    if context.pending_retry is not None:
        return context.pending_retry
    _tell(task, "on_success", value, task_id, args, kwargs)
    _tell(task, "after_return", "SUCCESS", value, task_id, args, kwargs, None)
    return EagerResult(task_id, "SUCCESS", value)


def _retry(task: Task[..., R], context: Context, retry: Retry, throw: bool) -> EagerResult[R] | Retry:
    try:
        plan_of(retry, task, context, now=0.0)
    except MaxRetriesExceededError as problem:
        return _failure(task, context, problem, throw)
    _tell(task, "on_retry", retry.exc or retry, str(context.id), context.args, context.kwargs, text_of(retry))
    return retry


def _failure(task: Task[..., R], context: Context, problem: Exception, throw: bool) -> EagerResult[R]:
    traceback = text_of(problem)
    about = (str(context.id), context.args, context.kwargs, traceback)
    _tell(task, "on_failure", problem, *about)
    _tell(task, "after_return", "FAILURE", problem, *about)
    if throw:
        raise problem
    return EagerResult(str(context.id), "FAILURE", problem, traceback)


def _tell(task: Task[..., Any], handler: str, *about: Any) -> None:
    if handler in task.handlers:
        getattr(task, handler)(*about)


def _call_links(result: EagerResult[Any], task_id: str, link: Any, link_error: Any) -> None:
    if result.successful():
        for signature in as_list(link) or ():
            signature.apply((result.result,))
    elif result.failed():
        for signature in as_list(link_error) or ():
            signature.apply((task_id,))
