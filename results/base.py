"""The ResultStore protocol, and the plain data that worker and clients exchange with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class StoredResult(NamedTuple):
    """One result on its way to the store: `meta` is the JSON object of Celery's result backend, encoded (UTF-8).

    `is_success` results are never overwritten by later ones that are no success.
    """

    task_id: str
    meta: bytes
    is_success: bool


class SettingsLike(Protocol):
    """What the stores read their settings from: the application's, or any mapping with the same names."""

    def get(self, name: str, default: Any = None, /) -> Any:
        """The value of the setting, or `default`."""
        ...


class ResultStore(Protocol):
    """Keeps the last state of each task. One thread at a time.

    Every verb raises ResultStoreError when the store is out of reach; each may be repeated.
    """

    def prepare(self) -> None:
        """Called once before a worker starts: raise ConfigError for what waiting does not repair, not for an outage."""
        ...

    def connect(self) -> None:
        """Reach the store or raise; drops a connection that exists."""
        ...

    def store(self, results: Sequence[StoredResult]) -> None:
        """Write all of them, in one round trip; a stored SUCCESS stays. Tells whoever waits for them."""
        ...

    def fetch(self, task_id: str) -> bytes | None:
        """The stored meta, or None (Celery's PENDING)."""
        ...

    def wait(self, task_id: str, timeout_s: float | None) -> bytes | None:
        """The meta once its status is final (SUCCESS, FAILURE, REVOKED), or None when the time is over."""
        ...

    def forget(self, task_id: str) -> None:
        """Delete the stored meta."""
        ...

    def close(self) -> None:
        """Drop the connection. Never raises."""
        ...
