"""Calls that are not made yet: a signature is one call as data, a chain several, each taking the previous one's result.

A signature is a dict in the form in which the wire carries it, so it can travel inside messages. `group` and `chord`
are not here yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

from ..core.errors import ConfigError
from .current import current_app
from .ids import new_id
from .publishing import as_list

if TYPE_CHECKING:
    from .app import App
    from .eager import EagerResult
    from .handles import ResultHandle
    from .task import Task


class Signature(dict[str, Any]):
    """One call: task name, arguments, options of `apply_async`; `immutable` if it takes no previous result."""

    def __init__(
        self,
        task: str | Task[..., Any] | Mapping[str, Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        subtask_type: str | None = None,
        app: App | None = None,
    ) -> None:
        if isinstance(task, Mapping):
            super().__init__(task)
        else:
            super().__init__(
                task=task if isinstance(task, str) else task.name,
                args=tuple(args or ()),
                kwargs=dict(kwargs or {}),
                options=dict(options or {}),
                subtask_type=subtask_type,
                immutable=immutable,
            )
        self._app = app if app is not None or isinstance(task, str | Mapping) else task.app

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], app: App | None = None) -> Signature:
        """Return the signature, or the chain, that a message has carried as a plain dict."""
        defaults: dict[str, Any] = {
            "task": "",
            "args": [],
            "kwargs": {},
            "options": {},
            "subtask_type": None,
            "immutable": False,
        }
        kind = chain if data.get("subtask_type") == "chain" else Signature
        found = kind.__new__(kind)
        Signature.__init__(found, {**defaults, **data}, app=app)
        return found

    @property
    def app(self) -> App:
        """The application that sends the call: the task's, or else the current one."""
        return self._app or current_app.get()

    @property
    def task(self) -> str:
        """The task's name."""
        return cast(str, self["task"])

    @property
    def args(self) -> Sequence[Any]:
        """The positional arguments."""
        return cast("Sequence[Any]", self["args"])

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""
        return cast("dict[str, Any]", self["kwargs"])

    @property
    def options(self) -> dict[str, Any]:
        """The options of `apply_async`."""
        return cast("dict[str, Any]", self["options"])

    @property
    def immutable(self) -> bool:
        """Whether a previous result is left out."""
        return bool(self["immutable"])

    @property
    def id(self) -> str | None:
        """The task id, if one is set."""
        return self.options.get("task_id")

    def clone(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Signature:
        """Return a copy; `args` go before its own, `kwargs` and `options` over its own. Immutable: only `options`."""
        copy = self.from_dict(deepcopy(dict(self)), self._app)
        if not self.immutable:
            copy["args"] = (*args, *self.args)
            copy["kwargs"] = {**copy["kwargs"], **(kwargs or {})}
        copy["options"].update(options)
        return copy

    def set(self, immutable: bool | None = None, **options: Any) -> Signature:
        """Change options in place; returns itself."""
        if immutable is not None:
            self["immutable"] = immutable
        self.options.update(options)
        return self

    def link(self, callback: Signature) -> Signature:
        """Have `callback` sent when the call succeeded; returns the callback."""
        return self._add("link", callback)

    def link_error(self, errback: Signature) -> Signature:
        """Have `errback` sent when the call failed; returns the errback."""
        return self._add("link_error", errback)

    def on_error(self, errback: Signature) -> Signature:
        """As `link_error`, but returns itself."""
        self.link_error(errback)
        return self

    def delay(self, *args: Any, **kwargs: Any) -> ResultHandle[Any]:
        """Make the call, with `args` before its own."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> ResultHandle[Any]:
        """Make the call, with `args` before its own and `options` over its own. See `Task.apply_async`."""
        call = self.clone(args or (), kwargs, **options)
        task = call.app.tasks.get(call.task)
        if task is not None:
            return task.apply_async(call.args, call.kwargs, **call.options)
        return call.app.send_task(call.task, call.args, call.kwargs, **call.options)

    def apply(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> EagerResult[Any]:
        """Make the call here and now. See `Task.apply`."""
        call = self.clone(args or (), kwargs, **options)
        return call.app.tasks[call.task].apply(call.args, call.kwargs, **call.options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task's function here, as an ordinary call."""
        call = self.clone(args, kwargs)
        return call.app.tasks[call.task](*call.args, **call.kwargs)

    def __or__(self, other: Any) -> Any:
        """`a | b` is the chain of both."""
        return chain(self, other, app=self._app) if isinstance(other, Signature) else NotImplemented

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature:
        return self.from_dict(deepcopy(dict(self), memo), self._app)

    def __repr__(self) -> str:
        shown = [repr(arg) for arg in self.args] + [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.task}({', '.join(shown)})"

    def _add(self, option: str, signature: Signature) -> Signature:
        links = as_list(self.options.get(option)) or []
        if signature not in links:
            links.append(signature)
        self.options[option] = links
        return signature


class chain(Signature):  # noqa: N801 - Celery's name, and it reads as a verb
    """Calls that run one after the other; each but the first takes the previous result as its first argument."""

    def __init__(self, *tasks: Any, app: App | None = None, **options: Any) -> None:
        members = tasks[0] if len(tasks) == 1 and not isinstance(tasks[0], Mapping) else tasks
        flat = list(_flattened(members))
        if not flat:
            raise ValueError("a chain needs at least one signature")
        super().__init__("celery.chain", (), {"tasks": flat}, options, subtask_type="chain", app=app or flat[0]._app)

    @property
    def tasks(self) -> list[Signature]:
        """The calls, in order."""
        return [Signature.from_dict(task, self._app) for task in self.kwargs["tasks"]]

    def clone(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> chain:
        """Return a copy in which the first call takes `args` and `kwargs` as well."""
        copy = cast(chain, self.from_dict(deepcopy(dict(self)), self._app))
        first, *rest = self.tasks
        copy.kwargs["tasks"] = [first.clone(args, kwargs), *(task.clone() for task in rest)]
        copy.options.update(options)
        return copy

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> ResultHandle[Any]:
        """Send the first call, which carries the others; return the handle of the last one's result.

        `task_id` and `link` are the last call's, `link_error` is every call's, all other options are the first one's.
        """
        call = self.clone(args or (), kwargs, **options)
        if call.app.conf.task_always_eager:
            return call.apply()
        first, *rest = _prepared(call)
        first.apply_async(**call._first_options(), chain=rest[::-1] or None)
        return call.app.AsyncResult(str((rest or [first])[-1].id))

    def apply(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> EagerResult[Any]:
        """Run all calls here and now; the first that fails is the result."""
        first, *rest = _prepared(self.clone(args or (), kwargs, **options))
        result = first.apply()
        for call in rest:
            if not result.successful():
                break
            result = call.apply((result.result,))
        return result

    def __call__(self, *args: Any, **kwargs: Any) -> ResultHandle[Any]:
        """As `delay`."""
        return self.apply_async(args, kwargs)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks))

    def _first_options(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name not in ("task_id", "link", "link_error")}


def signature(
    task: str | Task[..., Any] | Mapping[str, Any],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    immutable: bool = False,
    app: App | None = None,
    **more: Any,
) -> Signature:
    """Return a call of `task`: a name, a task, or a signature as a plain dict. See `Task.signature`."""
    if isinstance(task, Mapping):
        return Signature.from_dict(task, app).clone(args or (), kwargs, **(options or {}), **more)
    return Signature(task, args, kwargs, {**(options or {}), **more}, immutable=immutable, app=app)


def _flattened(members: Iterable[Any]) -> Iterable[Signature]:
    for member in members:
        found = member if isinstance(member, Signature) else signature(member)
        if found["subtask_type"] not in (None, "chain"):
            raise ConfigError(f"a {found['subtask_type']} inside a chain is not supported yet")
        if isinstance(found, chain):
            yield from found.tasks
        else:
            yield found


def _prepared(call: chain) -> list[Signature]:
    """The calls of a chain with their ids and links, ready to be sent."""
    members = call.tasks
    for member in members:
        member.set(task_id=member.id or new_id(), reply_to=member.options.get("reply_to") or call.app.oid)
        for errback in as_list(call.options.get("link_error")) or ():
            member.link_error(errback)
    last = members[-1]
    last.set(task_id=call.id or last.id)
    for callback in as_list(call.options.get("link")) or ():
        last.link(callback)
    return members
