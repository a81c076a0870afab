"""Finding the application that `-A` names. Called in the spawner, and by commands that need an App.

`pkg.mod:name` names module and attribute. `pkg.mod` is searched for `app`, `celery`, then for the only App in it,
then, if it is a package, in its submodules `celery` and `app`. Errors tell what was looked for and what is there
instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from ..core.errors import AppImportError, ConfigError
from ..core.settings_values import nearest
from .app import App
from .tracebacks import text_of

_ATTRIBUTES: Final = ("app", "celery")
_SUBMODULES: Final = ("celery", "app")


def find_app(spec: str, workdir: str | None = None) -> App:
    """Return the App that `spec` names. `workdir` (default: the current directory) goes first on the import path.

    Raises AppImportError; its `details` hold the user's part of the traceback if the module's own code failed.
    """
    _put_on_path(workdir)
    module_name, _, attribute = spec.partition(":")
    if not module_name:
        raise AppImportError(f"-A {spec!r} names no module; write it as -A package.module or -A package.module:name")
    if not attribute:
        module, attribute = _module_or_attribute(module_name)
    else:
        module = import_module(module_name)
    return _attribute_of(module, attribute) if attribute else _only_app_in(module)


def import_module(name: str) -> ModuleType:
    """Import the module called `name`. Raises AppImportError if it is missing or its own code fails."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name is not None and _is_part_of(problem.name, name):
            raise AppImportError(_missing(name, problem.name)) from None
        raise _failed(name, problem) from problem
    except ConfigError:
        raise  # a setting of the application is wrong: it says so itself
    # The user's module may raise anything, and sys.exit() in it must not end the worker without a word.
    except (Exception, SystemExit, KeyboardInterrupt) as problem:
        raise _failed(name, problem) from problem


def _put_on_path(workdir: str | None) -> None:
    path = os.path.abspath(workdir or os.getcwd())
    if path in sys.path:
        sys.path.remove(path)
    sys.path.insert(0, path)


def _module_or_attribute(name: str) -> tuple[ModuleType, str]:
    """`pkg.mod`, or `pkg.mod.name` where the last part is no module but an attribute."""
    try:
        return import_module(name), ""
    except AppImportError:
        parent, _, last = name.rpartition(".")
        known = sys.modules.get(parent)
        if known is not None and isinstance(getattr(known, last, None), App):
            return known, last
        raise


def _attribute_of(module: ModuleType, path: str) -> App:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            names = [name for name, _ in _apps_in(module)]
            hint = f"; it has {', '.join(names)}" if names else nearest(part, dir(found))
            raise AppImportError(f"module {module.__name__!r} has no attribute {path!r}{hint}")
        found = getattr(found, part)
    return _checked(found, f"{module.__name__}:{path}")


def _only_app_in(module: ModuleType) -> App:
    for name in _ATTRIBUTES:
        found = getattr(module, name, None)
        if isinstance(found, App) or _is_celery(found):
            return _checked(found, f"{module.__name__}:{name}")
    apps = {id(app): (name, app) for name, app in _apps_in(module)}
    if len(apps) == 1:
        name, app = next(iter(apps.values()))
        return _checked(app, f"{module.__name__}:{name}")
    if apps:
        names = ", ".join(f"-A {module.__name__}:{name}" for name, _ in apps.values())
        raise AppImportError(f"module {module.__name__!r} holds several applications; choose one: {names}")
    return _app_in_submodule(module)


def _app_in_submodule(module: ModuleType) -> App:
    for name in _SUBMODULES if hasattr(module, "__path__") else ():
        full = f"{module.__name__}.{name}"
        if importlib.util.find_spec(full) is not None:
            return _only_app_in(import_module(full))
    where = getattr(module, "__file__", None) or "a namespace package"
    raise AppImportError(
        f"module {module.__name__!r} ({where}) holds no application; "
        "it needs something like app = qworker.App('name'), or -A module:name must say where it is"
    )


def _apps_in(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if isinstance(value, App) or _is_celery(value):
            yield name, value


def _checked(found: Any, where: str) -> App:
    if isinstance(found, App):
        return found
    if _is_celery(found):
        raise AppImportError(
            f"{where} is a Celery application. The bridge that runs its tasks unchanged comes with qworker[celery] and "
            "is not in this version; qworker runs applications made with qworker.App"
        )
    raise AppImportError(f"{where} is a {type(found).__name__}, not an application (qworker.App)")


def _is_celery(value: Any) -> bool:
    # Without importing Celery: whoever made such an object has imported it.
    return any(kind.__name__ == "Celery" and kind.__module__.startswith("celery.") for kind in type(value).__mro__)


def _is_part_of(missing: str, wanted: str) -> bool:
    return wanted == missing or wanted.startswith(missing + ".")


def _missing(wanted: str, missing: str) -> str:
    if wanted.endswith(".py"):
        return f"there is no module {wanted!r}; leave out the .py: -A {wanted[:-3].replace(os.sep, '.')}"
    parent, _, last = missing.rpartition(".")
    where = getattr(sys.modules.get(parent), "__path__", None) if parent else [sys.path[0]]
    there = [module.name for module in pkgutil.iter_modules(where)] if where else []
    return f"there is no module {missing!r}" + (f" in {sys.path[0]}" if not parent else "") + nearest(last, there)


def _failed(name: str, problem: BaseException) -> AppImportError:
    text = str(problem) or "no message"
    return AppImportError(f"importing {name!r} failed: {type(problem).__name__}: {text}", text_of(problem))
