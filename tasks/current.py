"""The current application: what `current_app` stands for, and tasks that belong to whichever application there is.

The application made last is the current one, unless `App.set_default` has chosen. `shared_task` is for reusable
packages that do not know the application they will run in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from .app import App
    from .task import Task


class CurrentApp:
    """Stands for the current application."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._is_chosen = False

    def get(self) -> App:
        """Return the application. Raises ConfigError if none has been made."""
        if self._app is None:
            raise ConfigError("there is no application yet: make one first, app = qworker.App('name')")
        return self._app

    def offer(self, app: App) -> None:
        """Take `app`, which has just been made, unless one was chosen."""
        if not self._is_chosen:
            self._app = app

    def choose(self, app: App) -> None:
        """Make `app` the current one, whichever others are made later."""
        self._app, self._is_chosen = app, True

    def leave(self, app: App) -> None:
        """Forget `app` if it is the current one."""
        if self._app is app:
            self._app, self._is_chosen = None, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.get(), name)

    def __repr__(self) -> str:
        return repr(self._app)


current_app: Final = CurrentApp()

_makers: Final[list[Callable[[App], Task[..., Any]]]] = []


def shared_makers(start: int = 0) -> list[Callable[[App], Task[..., Any]]]:
    """Return what makes the shared tasks in an application, from the one numbered `start`."""
    return _makers[start:]


class SharedTask:
    """Stands for a shared task: for its incarnation in the current application."""

    def __init__(self, name_in: Callable[[App], str], function: Callable[..., Any]) -> None:
        self._name_in = name_in
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task here and now, as an ordinary function call."""
        return self._task()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task(), name)

    def __repr__(self) -> str:
        return f"<shared task {self.__wrapped__.__module__}.{self.__wrapped__.__qualname__}>"

    def _task(self) -> Task[..., Any]:
        app = current_app.get()
        return app.tasks[self._name_in(app)]


def shared_task(*functions: Callable[..., Any], **options: Any) -> Any:
    """Make a task in every application, those made later included. With or without options, as `App.task`."""

    def share(function: Callable[..., Any]) -> SharedTask:
        _makers.append(lambda app: app.make_task(function, **options))
        return SharedTask(lambda app: options.get("name") or app.name_for(function), function)

    return share(functions[0]) if functions else share


def task_by_name(name: str) -> Task[..., Any]:
    """Return the current application's task called `name`: how a pickled task is read. Raises NotRegistered."""
    return current_app.get().tasks[name]
