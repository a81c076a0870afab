"""The result store that a client's AsyncResult objects use: one per application and thread, opened on first use."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..core.errors import ConfigError
from .base import ResultStore, StoredResult
from .registry import open_result_store


class HasSettings(Protocol):
    """What is asked of an application: `conf` with the settings."""

    @property
    def conf(self) -> Any:
        """Its settings."""
        ...


class _Held:
    """A store, closed when the thread or the application that it was opened for is gone."""

    def __init__(self, url: str, store: ResultStore) -> None:
        self.url = url
        self.store = store

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # While the interpreter ends, modules lose their names and the kernel closes everything anyway.
        if not _is_finalizing():
            self.store.close()


class _Local(threading.local):
    def __init__(self) -> None:
        self.held: weakref.WeakKeyDictionary[HasSettings, _Held] = weakref.WeakKeyDictionary()


_local = _Local()


def store_of(app: HasSettings) -> ResultStore:
    """Return the calling thread's store for `app`. Raises ConfigError when the application keeps no results."""
    url = app.conf.get("result_backend")
    held = _local.held.get(app)
    if held is None or held.url != url:
        store = open_result_store(url, settings=app.conf)
        if store is None:
            raise ConfigError(
                "this application keeps no results: set its `backend` (result_backend), "
                "for example redis://localhost:6379/1 or sqlite:///results.db"
            )
        held = _local.held[app] = _Held(url, store)
    return held.store


def store_metas(app: HasSettings, metas: Sequence[tuple[str, bytes]]) -> None:
    """Store (task id, meta) pairs of tasks that will not run. Raises ResultStoreError, ConfigError."""
    store_of(app).store([StoredResult(task_id, meta, False) for task_id, meta in metas])


def close_store_of(app: HasSettings) -> None:
    """Close the calling thread's store for `app`; the next use opens it again."""
    _local.held.pop(app, None)
