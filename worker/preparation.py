"""Looking at the result store before the broker is reached, in a thread of its own.

A store that hangs must keep neither the master from its signals nor the consumer from a stop. Called by the link, which
connects to the broker when this is done.
"""

from __future__ import annotations

import threading

from ..results import ResultStore

#: Most stores have nothing to look at: they are done before anybody has to ask again.
_AT_ONCE_S = 0.01


class Preparation:
    """One look at one store; the thread that asks `is_done` is the one that uses the store afterwards."""

    def __init__(self, store: ResultStore | None) -> None:
        self._store = store
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def is_done(self) -> bool:
        """Begin with the first call. Raises ConfigError for what waiting does not repair."""
        if self._store is None:
            return True
        if self._thread is None:
            self._thread = threading.Thread(target=self._prepare, args=[self._store], name="results", daemon=True)
            self._thread.start()
            self._thread.join(_AT_ONCE_S)
        if self._thread.is_alive():
            return False
        self._store = None
        if self._error is not None:
            raise self._error
        return True

    def _prepare(self, store: ResultStore) -> None:
        try:
            store.prepare()
        except Exception as error:  # whatever it is, it is raised where somebody can act on it
            self._error = error
