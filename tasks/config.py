"""Settings out of a module, class or object. Called by `App.config_from_object`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..core.errors import ConfigError
from ..core.settings import is_setting


def settings_from_object(source: Any, namespace: str | None) -> dict[str, Any]:
    """Return what `source` (or the module it names) says, by settings' names; see `App.config_from_object`.

    Nothing is checked here, so that `Settings.update` can report all mistakes together. Raises ConfigError if a
    module cannot be imported.
    """
    values = _attributes(_imported(source) if isinstance(source, str) else source)
    if namespace:
        prefix = namespace.upper() + "_"
        return {name[len(prefix) :].lower(): value for name, value in values.items() if name.startswith(prefix)}
    if isinstance(source, Mapping):
        return values
    return {name: value for name, value in values.items() if is_setting(name) or _is_meant(name, value)}


def _attributes(source: Any) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return dict(source)
    return {name: getattr(source, name) for name in dir(source) if not name.startswith("_")}


def _is_meant(name: str, value: Any) -> bool:
    """Whether an unknown name is a misspelt or old setting, and nothing that the module defines for itself."""
    if isinstance(value, ModuleType | type) or callable(value):
        return False
    if name != name.lower():
        return name.startswith(("CELERY", "BROKER_"))
    return True


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        raise ConfigError(f"the configuration module {name!r} cannot be imported: {problem}") from problem
