"""Short representations of arguments and results, for `argsrepr` on the wire and for log lines. For people only.

Nothing here raises, and the work is bounded by the length asked for, however large the value (unless a class's own
`__repr__` is not). Called by encoding.py for every published message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

_LEVELS: Final = 4
_SMALL_TEXT: Final = 64
_SMALL_COUNT: Final = 8
_ATOMS: Final = frozenset({bool, float, type(None)})
_BRACKETS: Final[dict[type, tuple[str, str]]] = {list: ("[", "]"), set: ("{", "}"), frozenset: ("frozenset({", "})")}


def short_repr(value: Any, limit: int = 1024) -> str:
    """Return about `repr(value)`, cut off with `...` near `limit` characters."""
    if _is_small(value):
        return repr(value)
    parts: list[str] = []
    length = 0
    for part in _parts(value, limit, _LEVELS):
        parts.append(part)
        length += len(part)
        if length > limit:
            return "".join(parts)[:limit] + "..."
    return "".join(parts)


def _is_small(value: Any) -> bool:
    """Whether `value` is a tuple or dict of a few short atoms: what most calls pass."""
    kind = type(value)
    if kind is tuple:
        return len(value) <= _SMALL_COUNT and all(_is_atom(item) for item in value)
    if kind is dict:
        return len(value) <= _SMALL_COUNT and all(_is_atom(k) and _is_atom(v) for k, v in value.items())
    return False


def _is_atom(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return len(value) <= _SMALL_TEXT
    return kind in _ATOMS or (kind is int and bool(-(10**30) < value < 10**30))


def _parts(value: Any, limit: int, levels: int) -> Iterator[str]:
    kind = type(value)
    if kind is str or kind is bytes:
        yield repr(value) if len(value) <= limit else repr(value[:limit]) + "..."
    elif kind is tuple:
        yield from _items(value, "(", ",)" if len(value) == 1 else ")", limit, levels)
    elif kind is dict:
        yield from _pairs(value, limit, levels)
    elif kind in _BRACKETS and value:
        yield from _items(value, *_BRACKETS[kind], limit, levels)
    else:
        yield _own_repr(value)


def _items(values: Iterable[Any], opening: str, closing: str, limit: int, levels: int) -> Iterator[str]:
    yield opening
    if not levels:
        yield "..." + closing
        return
    separator = ""
    for value in values:
        yield separator
        yield from _parts(value, limit, levels - 1)
        separator = ", "
    yield closing


def _pairs(values: dict[Any, Any], limit: int, levels: int) -> Iterator[str]:
    yield "{"
    if not levels:
        yield "...}"
        return
    separator = ""
    for key, value in values.items():
        yield separator
        yield from _parts(key, limit, levels - 1)
        yield ": "
        yield from _parts(value, limit, levels - 1)
        separator = ", "
    yield "}"


def _own_repr(value: Any) -> str:
    try:
        return repr(value)
    # The user's __repr__ may raise anything, and a message must not be lost because it cannot be shown.
    except Exception as problem:
        return f"<{type(value).__name__}, whose repr raised {type(problem).__name__}>"
