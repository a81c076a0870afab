"""From the stored description of a failure back to an exception that can be raised. Called by AsyncResult.

The description is Celery's: `{"exc_type": "ValueError", "exc_message": ["bad", 42], "exc_module": "builtins"}`.
Nothing is imported for it: whoever can write to the store could otherwise have any module loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from ..core import errors

# Where Celery keeps the exceptions that we have under the same names.
_CELERYS: Final = frozenset({"celery.exceptions", "billiard.exceptions"})
_WRAPPER: Final = ("celery.utils.serialization", "UnpickleableExceptionWrapper")


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a worker: its text is the traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text


def rebuild(failure: object, traceback: str | None = None) -> Exception:
    """Return the exception described by `failure`, of its own class when that is already imported, else of a new one.

    Never raises. Classes outside Exception (SystemExit, KeyboardInterrupt) get a stand-in of the same name, derived
    from TaskError: a task that exits must not end the process that asks for its result.
    """
    exception = _rebuild(failure)
    if traceback:
        exception.__cause__ = RemoteTraceback(traceback)
    return exception


def _rebuild(failure: object) -> Exception:
    if not isinstance(failure, dict) or not isinstance(failure.get("exc_type"), str):
        return errors.TaskError(f"the task failed, and its stored failure cannot be read: {failure!r}")
    name, module = failure["exc_type"], failure.get("exc_module")
    message = failure.get("exc_message", ())
    args = tuple(message) if isinstance(message, list | tuple) else (message,)
    if (module, name) == _WRAPPER and len(args) == 4:
        return _stand_in(str(args[1]), str(args[0]), (args[3],))
    return _instance(_find(module, name), args) or _stand_in(name, module, args)


def _find(module: object, name: str) -> type[Exception] | None:
    if module in _CELERYS:
        found: Any = getattr(errors, name, None)
    else:
        found = sys.modules.get(module) if isinstance(module, str) else None
        for part in name.split("."):
            found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _instance(kind: type[Exception] | None, args: Sequence[Any]) -> Exception | None:
    if kind is None:
        return None
    try:
        return kind(*args)
    except Exception:  # a constructor that does not take its own `args` back: common in users' classes
        return _without_init(kind, args)


def _without_init(kind: type[Exception], args: Sequence[Any]) -> Exception | None:
    try:
        exception = kind.__new__(kind, *args)
        exception.args = tuple(args)
        str(exception)
    except Exception:  # it cannot even be shown without what its constructor would have set
        return None
    return exception


def _stand_in(name: str, module: object, args: Sequence[Any]) -> Exception:
    short = name.rpartition(".")[2]
    kind = type(
        short if short.isidentifier() else "TaskError",
        (errors.TaskError,),
        {"__module__": module if isinstance(module, str) else __name__},
    )
    stand_in: Exception = kind(*args)
    return stand_in
