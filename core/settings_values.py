"""Converters: what a setting's value may look like, and what it becomes.

Each converter takes what the user wrote and returns the value to keep, or raises ValueError with the second half of a
sentence ("must be …"). Called by settings.py only; the table in settings_table.py says which setting uses which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from math import isnan
from typing import Any, Final

Converter = Callable[[Any], Any]

CONTENT_TYPES: Final[Mapping[str, str]] = {
    "json": "application/json",
    "yaml": "application/x-yaml",
    "msgpack": "application/x-msgpack",
    "pickle": "application/x-python-serialize",
}
"""The serializers' short names and the content types that stand for them on the wire."""

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def anything(value: Any) -> Any:
    """Keep the value as it is."""
    return value


def text(value: Any) -> str:
    """A string."""
    if isinstance(value, str):
        return value
    raise ValueError("must be a string")


def boolean(value: Any) -> bool:
    """True or False; also the words that environment files use."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise ValueError("must be True or False")


def integer(least: int | None = None) -> Converter:
    """A whole number, at least `least`; a string of digits is converted."""

    def convert(value: Any) -> int:
        number = _as_int(value)
        if number is None:
            raise ValueError("must be a whole number")
        if least is not None and number < least:
            raise ValueError(f"must be {least} or more")
        return number

    return convert


def number(value: Any) -> float:
    """A number, never negative."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError("must be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or isnan(value):
        raise ValueError("must be a number")
    if value < 0:
        raise ValueError("must not be negative")
    return value


def seconds(value: Any) -> float:
    """A time in seconds; a timedelta is converted."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        return number(value)
    except ValueError as problem:
        raise ValueError(str(problem).replace("a number", "a number of seconds or a timedelta")) from None


def optional(convert: Converter) -> Converter:
    """None, or what `convert` accepts."""

    def maybe(value: Any) -> Any:
        return None if value is None else convert(value)

    return maybe


def choice(*words: Any) -> Converter:
    """One of `words`; a near miss is answered with the nearest."""

    def convert(value: Any) -> Any:
        if value in words:
            return value
        listed = ", ".join(repr(word) for word in words)
        raise ValueError(f"must be one of {listed}" + nearest(value, (w for w in words if isinstance(w, str))))

    return convert


def concurrency(value: Any) -> int | str:
    """A number of children, or the word auto."""
    if value == "auto":
        return "auto"
    try:
        return int(integer(1)(value))
    except ValueError:
        raise ValueError("must be a whole number above 0, or 'auto'") from None


def mapping(value: Any) -> dict[Any, Any]:
    """A dict; a copy is kept, so that later changes by the owner of the original do not reach the settings."""
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueError("must be a dict")


def words(value: Any) -> list[str]:
    """A list of strings; a single string is a list of one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(word, str) for word in value):
        return list(value) if isinstance(value, list | tuple) else sorted(value)
    raise ValueError("must be a list of strings")


def content_types(value: Any) -> list[str]:
    """A list of serializers, each by its short name or its content type."""
    names = words(value)
    known = (*CONTENT_TYPES, *CONTENT_TYPES.values())
    for name in names:
        if name not in known:
            raise ValueError(f"names the unknown serializer {name!r}" + nearest(name, known))
    return names


def zone(value: Any) -> str:
    """The name of a time zone that this machine knows."""
    name = text(value)
    if name.upper() == "UTC":
        return "UTC"
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, not a name, a directory
        raise ValueError(f"names the unknown time zone {name!r}; use a name such as 'Europe/Berlin'") from None
    return name


def nearest(word: Any, known: Iterable[str]) -> str:
    """Return "; did you mean …?" for the nearest known word, or an empty string."""
    from difflib import get_close_matches  # only a mistake needs it

    close = get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _as_int(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
        return int(value)
    return None
