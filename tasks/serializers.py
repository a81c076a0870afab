"""Serializers: how a message's body becomes bytes and back. JSON is built in, the others load only when used.

Called by codec.py and encoding.py for whatever is not plain JSON, and by the command line to check `accept_content`.
YAML and MessagePack come from packages (`qworker[yaml]`, `qworker[msgpack]`). Pickle runs code of the sender's choice
while it reads: it is used only where `accept_content` names it, and every producer of that queue must be trusted.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Final, NamedTuple

from ..core.errors import ConfigError
from ..core.settings_values import CONTENT_TYPES, nearest
from . import typed_json
from .typed_json import DecodeError, EncodeError


class Encoded(NamedTuple):
    """A body as bytes, with the two words that tell a reader how to read it."""

    content_type: str
    content_encoding: str
    data: bytes


class _Serializer(NamedTuple):
    content_encoding: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


def accepted_types(names: Iterable[str]) -> frozenset[str]:
    """Return the content types for serializer names or content types, as `decode(accept=…)` wants them.

    Raises ConfigError for an unknown name, and for a serializer whose package is missing.
    """
    types = frozenset(content_type_of(name) for name in names)
    for kind in types & _PACKAGES.keys():
        _package_for(kind)
    return types


def content_type_of(name: str) -> str:
    """Return the content type of the serializer called `name`; a content type stands for itself. Raises ConfigError."""
    if name in CONTENT_TYPES:
        return CONTENT_TYPES[name]
    if name in _SERIALIZERS:
        return name
    raise ConfigError(f"there is no serializer {name!r}" + nearest(name, CONTENT_TYPES))


def dumps(value: Any, serializer: str) -> Encoded:
    """Return `value` encoded by `serializer` (a name or a content type).

    Raises EncodeError for a value that it cannot express, ConfigError if the serializer is unknown or its package
    missing.
    """
    kind = content_type_of(serializer)
    chosen = _SERIALIZERS[kind]
    try:
        return Encoded(kind, chosen.content_encoding, chosen.dumps(value))
    except (ConfigError, EncodeError):
        raise
    # The packages and pickle raise what they like, and call into the user's classes.
    except Exception as problem:
        raise EncodeError(f"{serializer}: {problem}") from problem


def loads(data: bytes, content_type: str, content_encoding: str | None) -> Any:
    """Return what `data` holds. The caller has checked that `content_type` is accepted.

    Raises DecodeError, LookupError for a content encoding that is none of ours, RecursionError when nested too deeply,
    ConfigError if the package is missing.
    """
    if content_type == "application/json":
        return typed_json.loads(_text(data, content_encoding))
    chosen = _SERIALIZERS.get(content_type)
    if chosen is None:
        raise DecodeError(f"content type {content_type!r} is not known")
    try:
        return chosen.loads(data)
    except (ConfigError, RecursionError):
        raise
    # As in `dumps`; unpickling moreover runs arbitrary code.
    except Exception as problem:
        raise DecodeError(f"{type(problem).__name__}: {problem}"[:500]) from problem


def _text(data: bytes, content_encoding: str | None) -> str | bytes:
    if content_encoding in (None, "utf-8", "binary"):
        return data
    if str(content_encoding).lower() not in _CHARSETS:
        raise LookupError(content_encoding)
    try:
        return data.decode(content_encoding)
    except UnicodeDecodeError as problem:
        raise DecodeError(str(problem)) from None


def _yaml_dumps(value: Any) -> bytes:
    return bytes(_package_for("application/x-yaml").safe_dump(value, allow_unicode=True), "utf-8")


def _yaml_loads(data: bytes) -> Any:
    return _package_for("application/x-yaml").safe_load(data)


def _msgpack_dumps(value: Any) -> bytes:
    packed: bytes = _package_for("application/x-msgpack").packb(value, use_bin_type=True)
    return packed


def _msgpack_loads(data: bytes) -> Any:
    return _package_for("application/x-msgpack").unpackb(data, raw=False, strict_map_key=False)


def _pickle_dumps(value: Any) -> bytes:
    import pickle

    return pickle.dumps(value, protocol=4)  # what a Celery producer writes; every supported Python reads it


def _pickle_loads(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


def _package_for(content_type: str) -> ModuleType:
    module, extra = _PACKAGES[content_type]
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{content_type} needs the package {module!r}, which is not installed: pip install 'qworker[{extra}]'"
        ) from None


# Not every codec that Python knows: some fail in ways of their own, and punycode takes minutes for a megabyte.
_CHARSETS: Final = frozenset(
    {"utf8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"}
    | {"ascii", "us-ascii", "latin-1", "latin1", "iso-8859-1", "iso-8859-15", "windows-1252", "cp1252"}
)

_PACKAGES: Final = {"application/x-yaml": ("yaml", "yaml"), "application/x-msgpack": ("msgpack", "msgpack")}

_SERIALIZERS: Final = {
    "application/json": _Serializer("utf-8", lambda value: typed_json.dumps(value).encode(), typed_json.loads),
    "application/x-yaml": _Serializer("utf-8", _yaml_dumps, _yaml_loads),
    "application/x-msgpack": _Serializer("binary", _msgpack_dumps, _msgpack_loads),
    "application/x-python-serialize": _Serializer("binary", _pickle_dumps, _pickle_loads),
}
