"""Result stores and AsyncResult. What clients need is loaded when it is asked for: a worker only stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import ResultStore, SettingsLike, StoredResult
from .registry import open_result_store

if TYPE_CHECKING:
    from .asyncresult import AsyncResult
    from .client import close_store_of, store_metas

__all__ = [
    "AsyncResult",
    "ResultStore",
    "SettingsLike",
    "StoredResult",
    "close_store_of",
    "open_result_store",
    "store_metas",
]

_LAZY = {"AsyncResult": "asyncresult", "close_store_of": "client", "store_metas": "client"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
