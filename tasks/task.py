"""Task: a registered function with a name and options. Calling it runs it here, `delay` sends it to a worker.

Made by `App.task`; one object per app and name. Publishing is in publishing.py, retrying in retrying.py, running
without a worker in eager.py, the options in task_options.py. The executor calls `body` with a `Context` entered
(context.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, cast

from ..core.clock import wall_time
from ..core.errors import Retry
from . import context as contexts
from .calling import Parameters
from .context import Context
from .eager import EagerResult, run_eagerly, through_the_wire
from .interrupts import interrupts
from .outcome_meta import fields_of, state_meta
from .publishing import prepare
from .retrying import RETRY_OPTIONS, RetryPlan, attach, due_at, may_retry, out_of_retries, retrying
from .task_options import TaskOptions
from .typed_json import dumps

if TYPE_CHECKING:
    from .app import App
    from .canvas import Signature
    from .handles import ResultHandle

P = ParamSpec("P")
R = TypeVar("R")

#: Methods that a subclass may override to be told how a run went; see `Task.handlers`.
HANDLERS: Final = ("before_start", "on_success", "on_failure", "on_retry", "after_return")


class Task(TaskOptions, Generic[P, R]):
    """A task. Its options are attributes; those not set here or by `@app.task` come from the settings.

    Subclass it for handlers or other defaults and pass the class as `base=`. Any thread may call and send it.
    """

    app: App
    name: str = ""
    run: Callable[..., Any]

    #: The overridden ones of HANDLERS: the executor calls only these.
    handlers: frozenset[str] = frozenset()
    #: Whether the function takes this task as its first argument (`bind=True`).
    is_method: bool = False
    #: What the executor calls with a context entered: `run`, or a way through `__call__` where a subclass overrides it.
    body: Callable[..., Any]

    def bind(
        self,
        app: App,
        name: str,
        function: Callable[..., Any] | None = None,
        *,
        is_method: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Make this the task called `name` of `app`. Called once, by the app.

        `function` becomes `run`, with this task as its first argument if `is_method`; without it the class's own
        `run` is used.
        """
        for option, value in (options or {}).items():
            # A function that names calls gets the task first, as a method of a subclass does.
            setattr(self, option, MethodType(value, self) if option == "shadow_name" else value)
        self.app, self.name, self.is_method = app, name, is_method
        if function is not None:
            self.__doc__, self.__module__ = function.__doc__, function.__module__
            self.__wrapped__, self.__name__ = function, getattr(function, "__name__", name)
            self.run = MethodType(function, self) if is_method else function
        self._parameters = Parameters(self.run)
        if self.autoretry_for:
            self.run = retrying(self, self.run)
        self.handlers = frozenset(h for h in HANDLERS if getattr(type(self), h) is not getattr(Task, h))
        self.body = self.run if type(self).__call__ is Task.__call__ else self._run_through_call

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the task here and now, as an ordinary function call."""
        context = contexts.context_of(self)
        if context is not None and context.is_entering:  # a subclass's __call__, called by `body`, calls this one
            context.is_entering = False
            return cast(R, self.run(*args, **kwargs))
        entered = contexts.enter(self, Context(args=args, kwargs=kwargs, task=self.name))
        try:
            return cast(R, self.run(*args, **kwargs))
        finally:
            contexts.leave(entered)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> ResultHandle[R]:
        """Send the task to a worker: `apply_async` without options."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        expires: float | timedelta | datetime | str | None = None,
        headers: Mapping[str, Any] | None = None,
        ignore_result: bool | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        serializer: str | None = None,
        compression: str | None = None,
        shadow: str | None = None,
        routing_key: str | None = None,
        retries: int = 0,
        reply_to: str | None = None,
        link: Any = None,
        link_error: Any = None,
        add_to_parent: bool = True,
        unique: bool | None = None,
        unique_for: float | timedelta | None = None,
        **properties: Any,
    ) -> ResultHandle[R]:
        """Send the task to a worker and return the handle of its result.

        `countdown` (seconds) or `eta`: do not run before; `expires` (seconds or a time): do not run after. `priority`
        is 0 (first) to 9. Limits are in seconds. `link`, `link_error`: a signature or several, sent on success or
        failure. With `unique` nothing is sent while a message with the same `task_id` waits, is delayed or runs; the
        handle is that message's. Other keywords become message properties. Raises TypeError if the arguments do not
        fit the function, EncodeError if they cannot be sent, TransportError if the broker did not take the message.
        """
        args, kwargs = tuple(args or ()), dict(kwargs or {})
        if self.typing:
            self._parameters.check(args, kwargs)
        ignore_result = self.ignore_result if ignore_result is None else ignore_result
        if self.shadow_name is not None and shadow is None:
            shadow = self.shadow_name(args, kwargs, properties)
        if self.app.conf.task_always_eager:
            args, kwargs = through_the_wire(args, kwargs, serializer or self.serializer)
            return self.apply(args, kwargs, task_id=task_id, link=link, link_error=link_error, headers=headers)
        prepared = prepare(
            self.app,
            self.name,
            args,
            kwargs,
            task=self,
            task_id=task_id,
            queue=queue,
            priority=priority,
            countdown=countdown,
            eta=eta,
            expires=expires,
            headers=headers,
            ignore_result=ignore_result,
            time_limit=time_limit,
            soft_time_limit=soft_time_limit,
            serializer=serializer,
            compression=compression,
            shadow=shadow,
            routing_key=routing_key,
            retries=retries,
            reply_to=reply_to,
            link=link,
            link_error=link_error,
            unique=unique,
            unique_for=unique_for,
            **properties,
        )
        return self.app.publish(prepared, add_to_parent=add_to_parent)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str | None = None,
        retries: int = 0,
        throw: bool | None = None,
        link: Any = None,
        link_error: Any = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run the task here and now as a worker would, retries included but without waiting, and return its result.

        With `throw` (default: `task_eager_propagates`) its exception is raised instead of kept. Nothing is stored.
        """
        return run_eagerly(
            self,
            tuple(args or ()),
            dict(kwargs or {}),
            task_id=task_id,
            retries=retries,
            throw=self.app.conf.task_eager_propagates if throw is None else throw,
            link=link,
            link_error=link_error,
            headers=headers,
        )

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """End this run; the message comes back after `countdown` seconds, at `eta`, or after `default_retry_delay`.

        Raises Retry, which the worker turns into the next message in the same step that settles this one; with
        `throw=False` it is returned and the next message follows when this run ends. Without a retry left, `exc` is
        raised, or MaxRetriesExceededError. In a direct call `exc` is raised at once. `options` may change
        RETRY_OPTIONS.
        """
        context = self.request
        if context.called_directly:
            _raise(exc or Retry("the task can be retried"))
        unknown = options.keys() - RETRY_OPTIONS
        if unknown:
            raise TypeError(f"retry() cannot change {sorted(unknown)}; it can change {sorted(RETRY_OPTIONS)}")
        args = context.args if args is None else args
        kwargs = context.kwargs if kwargs is None else kwargs
        if not may_retry(context.retries, self.max_retries if max_retries is None else max_retries):
            _raise(exc or out_of_retries(self.name, context, args, kwargs))
        when = eta if eta is not None else countdown
        due = due_at(when, self.default_retry_delay, wall_time(), self.app.conf.timezone)
        changed_args = None if args is context.args else tuple(args)
        changed_kwargs = None if kwargs is context.kwargs else dict(kwargs)
        retry = Retry(exc=exc, when=self.default_retry_delay if when is None else when)
        attach(retry, RetryPlan(context.retries + 1, due, changed_args, changed_kwargs, options))
        if throw:
            raise retry
        context.pending_retry = retry
        return retry

    @property
    def request(self) -> Context:
        """The run of this task that this thread is in; outside of one, the context of a direct call."""
        return contexts.context_of(self) or Context(task=self.name)

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **more: Any) -> None:
        """Store a state of the task's own, `PROGRESS` for example, with `meta` as what `AsyncResult.result` returns.

        Only in a worker: an eager or direct run has nobody who looks, and nothing happens. Raises EncodeError.
        """
        context = self.request
        task_id = task_id or context.id
        if task_id is None or contexts.state_sink is None:
            return
        contexts.state_sink(
            task_id, state or "PENDING", state_meta(task_id, state or "PENDING", meta, fields_of(context))
        )

    def shield(self) -> AbstractContextManager[None]:
        """Return a context manager: a stop or soft time limit that falls into its block is raised at the block's end.

        A cold stop still ends the process two seconds after it was ordered.
        """
        return interrupts.shield()

    def checkpoint(self, state: Any) -> None:
        """Keep `state` (JSON) in case this run is cut by a stop: the next run finds it in `request.checkpoint`.

        The master keeps it too, for a run that has to be killed; one that crashes starts anew. When the worker has
        begun to stop, this ends the run: it raises WorkerShutdown, and the message goes to the front of its queue with
        the state. Not a failure and not a retry. Raises EncodeError.
        """
        dumps(state)
        context = self.request
        context.saved_checkpoint = state
        if self.acks_late and contexts.checkpoint_sink is not None:
            contexts.checkpoint_sink(context, state)
        if context.stopping and not context.called_directly:
            interrupts.cut("checkpointed")

    def signature(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **more: Any,
    ) -> Signature:
        """Return a call that is not made yet: of this task, with these arguments and options of `apply_async`."""
        from .canvas import Signature

        return Signature(self.name, args, kwargs, {**(options or {}), **more}, immutable=immutable, app=self.app)

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a call that is not made yet; in a chain, the previous result goes before `args`."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a call that is not made yet and takes no previous result."""
        return self.signature(args, kwargs, immutable=True)

    def AsyncResult(self, task_id: str) -> ResultHandle[R]:  # noqa: N802 - Celery's name
        """Return the handle of the result of `task_id`."""
        return self.app.AsyncResult(task_id)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called in the worker before the run. Override it."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called in the worker when the run succeeded. Override it."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker when the run failed. `einfo` is the traceback's text. Override it."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker when the run is to be retried. Override it."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker when the run has ended, after the other handlers. Override it."""

    def _run_through_call(self, *args: Any, **kwargs: Any) -> Any:
        self.request.is_entering = True
        return self(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<@task: {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # By name: the reader has the task itself, and functions made by decorators cannot be pickled.
        from .current import task_by_name

        return task_by_name, (self.name,)


def _raise(exc: BaseException) -> None:
    """Raise `exc`, with the exception that is being handled as its cause."""
    current = sys.exc_info()[1]
    if current is None or current is exc:
        raise exc
    raise exc from current
