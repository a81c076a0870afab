"""App: an application's tasks, settings and connections; what user code starts from.

    app = App("shop", broker="redis://localhost:6379/0")

    @app.task
    def add(x, y): ...

Tasks are made at once, names included; settings are read when they are needed, so that they may be changed later. A
worker's spawner loads an App by loader.py; producers use it directly.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from ..core.errors import ConfigError, NotRegistered
from ..core.settings import Settings
from ..core.settings_values import nearest
from .config import settings_from_object
from .context import running_context, running_task
from .current import current_app, shared_makers
from .handles import ResultHandle, handle_for
from .ids import new_id
from .options import checked_options
from .outcome_meta import task_child
from .producer import Producer
from .publishing import Prepared, prepare
from .routing import queues_in
from .task import Task

if TYPE_CHECKING:
    from ..transports import Transport
    from .canvas import Signature
    from .control import Control

logger = logging.getLogger("qworker.tasks")

P = ParamSpec("P")
R = TypeVar("R")
TaskT = TypeVar("TaskT", bound=Task[..., Any])


class TaskRegistry(dict[str, Task[..., Any]]):
    """Tasks by name. A missing one raises NotRegistered."""

    def __missing__(self, name: str) -> Task[..., Any]:
        raise NotRegistered(f"task {name!r} is not registered" + nearest(name, self))


class App:
    """An application. Making it and its tasks belongs to one thread; sending tasks and reading settings to any.

    `main` is its name, and stands for the module name in the names of tasks that are defined in a script. `include`
    names modules with tasks, imported by the worker. Further keywords are settings. Raises ConfigError with all
    mistakes.
    """

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Iterable[str] = (),
        **settings: Any,
    ) -> None:
        given = {"broker_url": broker, "result_backend": backend, "include": list(include) or None}
        self.main = main
        self.conf = Settings({name: value for name, value in given.items() if value is not None}, **settings)
        self._registry = TaskRegistry()
        self._shared_seen = 0
        self._annotated: set[str] = set()
        self._producer = Producer(self._open_transport, self._publish_policy)
        self._oid = (0, "")
        self.logging_hook: Callable[..., Any] | None = None
        current_app.offer(self)

    @property
    def tasks(self) -> TaskRegistry:
        """The tasks by name, shared ones included."""
        makers = shared_makers(self._shared_seen)
        self._shared_seen += len(makers)
        for make in makers:
            make(self)
        if self.conf.task_annotations and len(self._annotated) < len(self._registry):
            self._annotate()
        return self._registry

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self, /, *, bind: Literal[True], **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...

    @overload
    def task(self, /, *, bind: Literal[False] = False, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, /, *functions: Callable[..., Any], **options: Any) -> Any:
        """Make a function a task: `@app.task` or `@app.task(queue="hipri", …)`.

        `name` is by default the module's and the function's, `bind=True` gives the function its task as first
        argument, `base` is the class to use instead of Task. Raises ConfigError with every unknown or wrong option.
        """
        if functions:
            return self.make_task(functions[0], **options)
        return lambda function: self.make_task(function, **options)

    def make_task(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        bind: bool = False,
        base: type[Task[..., Any]] | None = None,
        shared: bool = True,
        lazy: bool = True,
        **options: Any,
    ) -> Task[..., Any]:
        """Make `function` a task, if it is none yet, and return it. `shared` and `lazy` change nothing."""
        name = name or self.name_for(function)
        known = self._registry.get(name)
        if known is not None and getattr(known, "__wrapped__", None) is function:
            return known
        task = (base or Task)()
        task.bind(self, name, function, is_method=bind, options=checked_options(name, options))
        self._registry[name] = task
        return task

    def register_task(self, task: TaskT, **options: Any) -> TaskT:
        """Add an object of a Task class of your own, which has a `run` method, and return it."""
        name = task.name or self.name_for(type(task))
        task.bind(self, name, options=checked_options(name, options))
        self._registry[name] = task
        return task

    def name_for(self, function: Callable[..., Any]) -> str:
        """Return the name of a task made of `function`: `module.function`.

        In a script the module is called `__main__` by Python, but by its own name in the worker that imports it: it is
        named after the app, or else after its file.
        """
        module = function.__module__
        if module == "__main__":
            module = self.main or _script_name()
        return f"{module}.{getattr(function, '__name__', type(function).__name__)}"

    def send_task(
        self, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> ResultHandle[Any]:
        """Send the task called `name`, which need not be known here. Options and errors as for `Task.apply_async`."""
        add_to_parent = options.pop("add_to_parent", True)
        prepared = prepare(self, name, tuple(args or ()), kwargs, task=self.tasks.get(name), **options)
        return self.publish(prepared, add_to_parent=add_to_parent)

    def publish(self, prepared: Prepared, *, add_to_parent: bool = True) -> ResultHandle[Any]:
        """Put a prepared call on the broker. Raises TransportError if the broker did not take it."""
        if prepared.span is None:
            return self._publish(prepared, add_to_parent)
        from .tracing import sending

        with sending(prepared.span):
            return self._publish(prepared, add_to_parent)

    def _publish(self, prepared: Prepared, add_to_parent: bool) -> ResultHandle[Any]:
        if self._producer.publish([prepared.envelope], lambda: self._publish_policy(prepared)):
            logger.debug("%s is not published: a unique message with this id is on its way or runs", prepared.task_id)
        parent = running_context() if add_to_parent else None
        if parent is not None:
            task = running_task()
            if task is not None and task.trail:
                parent.children.append(task_child(prepared.task_id))
        return handle_for(self, prepared.task_id)

    @property
    def control(self) -> Control:
        """What can be done about tasks that have been sent."""
        from .control import Control

        return Control(self, self._producer)

    def AsyncResult(self, task_id: str) -> ResultHandle[Any]:  # noqa: N802 - Celery's name
        """Return the handle of the result of `task_id`."""
        return handle_for(self, task_id)

    def signature(self, task: str | Task[..., Any] | Mapping[str, Any], *args: Any, **options: Any) -> Signature:
        """Return a call that is not made yet. See `qworker.signature`."""
        from .canvas import signature

        return signature(task, *args, app=self, **options)

    def config_from_object(self, source: Any, *, namespace: str | None = None) -> None:
        """Take settings from a module (or its name), a class, an object or a dict; ConfigError lists every mistake.

        With `namespace="CELERY"` they are the attributes that begin with `CELERY_`, in upper case. Without it they are
        those in lower case; what is imported or defined there is passed over.
        """
        self.conf.update(settings_from_object(source, namespace))

    def autodiscover_tasks(
        self, packages: Iterable[str] | Callable[[], Iterable[str]], related_name: str = "tasks"
    ) -> None:
        """Have the worker import the module `related_name` of each of `packages`, where there is one."""
        names = list(packages() if callable(packages) else packages)
        found = [f"{package}.{related_name}" for package in names if _exists(f"{package}.{related_name}")]
        self.conf.include = [*self.conf.include, *found]

    def setup_logging(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Have a worker leave its logging to `function`, for use as a decorator.

        It is called once, in the process that imports the application, with the keywords `loglevel`, `logfile`,
        `format` and `colorize`; the children inherit what it does. Worker lines then go to the root logger like any
        other, and nothing that is printed is touched. The master never runs code of the application: its lines go on
        as the command line says.
        """
        self.logging_hook = function
        return function

    def load_includes(self, more: Iterable[str] = ()) -> None:
        """Import the modules in `include`, `imports` and `more`. Raises AppImportError."""
        from .loader import import_module

        for module in dict.fromkeys([*self.conf.imports, *self.conf.include, *more]):
            import_module(module)

    def queue_names(self) -> list[str]:
        """Return the queues that a worker consumes from when it is told no other.

        These are the names in `task_queues`; without it the default queue, and what tasks and routes name.
        """
        declared = self.conf.task_queues
        if declared:
            return list(dict.fromkeys(str(getattr(queue, "name", queue)) for queue in declared))
        of_tasks = [task.queue or task.routing_key for task in self.tasks.values()]
        named = [self.conf.task_default_queue, *of_tasks, *queues_in(self.conf.task_routes)]
        return list(dict.fromkeys(str(name) for name in named if name))

    def set_default(self) -> None:
        """Make this the current application, whichever others are made later."""
        current_app.choose(self)

    set_current = set_default

    @property
    def oid(self) -> str:
        """What this process calls itself in `reply_to`."""
        pid, oid = self._oid
        if pid != os.getpid():
            oid = new_id()
            self._oid = (os.getpid(), oid)
        return oid

    def close(self) -> None:
        """Close the connections of all threads; no thread may be sending. The App can be used again afterwards."""
        self._producer.close()

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<App {self.main or '?'}>"

    def _open_transport(self) -> Transport:
        from ..transports import broker_options, open_transport

        conf = self.conf
        url = conf.broker_write_url or conf.broker_url
        return open_transport(url, options=broker_options(conf))

    def _publish_policy(self, prepared: Prepared | None = None) -> Mapping[str, Any] | None:
        """How sending is repeated: by the settings, or by what the call itself says."""
        policy: Mapping[str, Any] = self.conf.task_publish_retry_policy
        wanted = self.conf.task_publish_retry
        if prepared is not None:
            wanted = wanted if prepared.retry is None else prepared.retry
            policy = {**policy, **(prepared.retry_policy or {})}
        return policy if wanted else None

    def _annotate(self) -> None:
        """Apply `task_annotations`: options by task name, those of `*` for all."""
        annotations = self.conf.task_annotations
        for name, task in self._registry.items():
            if name not in self._annotated:
                options = {**annotations.get("*", {}), **annotations.get(name, {})}
                for option, value in checked_options(name, options).items():
                    setattr(task, option, value)
        self._annotated.update(self._registry)


def _script_name() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        return str(spec.name)
    path = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(path))[0] if path else "__main__"


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as problem:
        raise ConfigError(f"autodiscover_tasks: {problem}") from None
