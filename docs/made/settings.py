"""The tables of settings.md: `core/settings_table.py` with the descriptions of settings_notes.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import qworker
from qworker.core.settings_old_names import _IRREGULAR
from qworker.core.settings_table import _ELSEWHERE, _OWN, TABLE
from qworker.core.settings_values import Converter

from .settings_notes import NOTES, WITHOUT_EFFECT
from .tables import table

_PREFIXES: Final = {
    "broker": ("broker_",),
    "results": ("result_", "redis_", "dynamodb_"),
    "tasks": ("task_",),
    "worker": ("worker_",),
    "beat": ("beat_",),
    "monitoring": ("control_", "event_", "security_"),
}
_OLD_PREFIXES: Final = {"worker_": "CELERYD_", "beat_": "CELERYBEAT_", "broker_": "BROKER_"}
#: Of these the old name had CELERY_ before the whole name.
_WHOLE: Final = ("result_", "event_", "security_", "redis_", "task_protocol", "task_publish_retry", "task_serializer")
_GENERAL_OLD: Final = ("accept_content", "imports", "include", "timezone")
_WORDS: Final = {
    "anything": "any",
    "boolean": "true or false",
    "concurrency": "whole number or `auto`",
    "content_types": "list of serializers",
    "mapping": "dict",
    "number": "number",
    "seconds": "seconds",
    "text": "text",
    "words": "list of names",
    "zone": "time zone",
}


def section(name: str, effect: str = "with-effect") -> str:
    """The settings of one section that change something, or (`without-effect`) those that load and change nothing."""
    names = [
        n for n in TABLE if n not in _ELSEWHERE and group(n) == name and has_effect(n) == (effect == "with-effect")
    ]
    rows = [(_names(n), f"{kind(TABLE[n].convert)}; {_default(n)}", NOTES[n]) for n in names]
    return table(("setting, and what it was before Celery 4", "type; default", "meaning"), rows)


def elsewhere() -> str:
    """The settings of result backends that only Celery has."""
    return ", ".join(f"`{name}`" for name in _ELSEWHERE)


def group(name: str) -> str:
    """The section of a setting."""
    return next((g for g, prefixes in _PREFIXES.items() if name.startswith(prefixes)), "general")


@cache
def has_effect(name: str) -> bool:
    """Whether the code reads it: its name stands somewhere outside of the tables, and no note says otherwise."""
    return name not in WITHOUT_EFFECT and name in _words_of_package()


def kind(convert: Converter) -> str:
    """What a value may be, in words."""
    maker, _, is_made = convert.__qualname__.partition(".")
    if not is_made:
        return _WORDS[maker]
    made_of = _made_of(convert)
    if maker == "integer":
        least = made_of.get("least")
        return "whole number" if least is None else f"whole number, {least} or more"
    if maker == "optional":
        return kind(made_of["convert"]) + ", or none"
    assert maker == "choice", maker
    return " or ".join(f"`{word}`" for word in made_of["words"])


def old_name(name: str) -> str | None:
    """What Celery called it before version 4; None when it is younger, or only qworker's."""
    for old, new in _IRREGULAR.items():
        if new == name:
            return old
    if name in _OWN or name in _ELSEWHERE or (group(name) == "general" and name not in _GENERAL_OLD):
        return None
    for prefix, old in _OLD_PREFIXES.items():
        if name.startswith(prefix):
            return old + name.removeprefix(prefix).upper()
    if name.startswith(("control_", "dynamodb_")):
        return None
    return "CELERY_" + (name if name.startswith(_WHOLE) else name.removeprefix("task_")).upper()


@cache
def _words_of_package() -> frozenset[str]:
    """Every word of all code but the tables of settings."""
    package = Path(qworker.__file__).parent
    rooms = [init.parent for init in package.glob("*/__init__.py") if init.parent.name not in ("tests", "bench")]
    files = [file for room in rooms for file in room.glob("*.py") if not file.name.startswith("settings_")]
    return frozenset(word for file in files for word in re.findall(r"\w+", file.read_text("utf-8")))


def _made_of(convert: Callable[..., Any]) -> dict[str, Any]:
    """What a converter that was made by a function was made of."""
    cells = convert.__closure__ or ()
    return {name: cell.cell_contents for name, cell in zip(convert.__code__.co_freevars, cells, strict=True)}


def _default(name: str) -> str:
    value = TABLE[name].default
    if value == float("inf"):
        return "no limit"
    return "none" if value is None else f"`{value!r}`" if not isinstance(value, str) else f"`{value}`"


def _names(name: str) -> str:
    old = old_name(name)
    return f"`{name}`" + (f"<br>was `{old}`" if old else "")
