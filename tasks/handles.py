"""What a call returns: the promise of a result. The results room's AsyncResult and an eager run's EagerResult keep it.

The results room lies above this one. The package's root, which lies above both, connects them (`connect_results`)
when it hands out the first name of this room; so nothing here reaches upwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from .app import App

R_co = TypeVar("R_co", covariant=True)


class ResultHandle(Protocol[R_co]):
    """The result of one task, now or later."""

    @property
    def id(self) -> str:
        """The task's id."""
        ...

    @property
    def status(self) -> str:
        """PENDING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED, or a state of the task's own."""
        ...

    @property
    def state(self) -> str:
        """The same as `status`."""
        ...

    @property
    def result(self) -> Any:
        """The value, or the exception."""
        ...

    @property
    def traceback(self) -> str | None:
        """The text of the traceback, for a failure."""
        ...

    def get(self, timeout: float | None = None, propagate: bool = True) -> R_co:
        """Wait for the result and return it, or raise what the task raised."""
        ...

    def ready(self) -> bool:
        """Whether the task is done."""
        ...

    def successful(self) -> bool:
        """Whether the task is done and succeeded."""
        ...

    def failed(self) -> bool:
        """Whether the task is done and failed."""
        ...

    def forget(self) -> None:
        """Delete the stored result."""
        ...


class _Unconnected:
    """Stands for a result where nobody has connected the results room: inside the package's own commands."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name} of task {self.id}: results are there for an App that was imported from qworker")


Metas = Sequence[tuple[str, bytes]]

_make_handle: Callable[[str, App], ResultHandle[Any]] | None = None
_store_metas: Callable[[App, Metas], None] | None = None


def connect_results(
    make_handle: Callable[[str, App], ResultHandle[Any]], store: Callable[[App, Metas], None] | None = None
) -> None:
    """Say how the handle of a result is made, and how results are stored that no run has. Called by the package's
    root."""
    global _make_handle, _store_metas
    _make_handle, _store_metas = make_handle, store


def store_metas(app: App, metas: Metas) -> None:
    """Store (task id, meta) pairs in the result backend of `app`. Raises ResultStoreError."""
    if _store_metas is not None:
        _store_metas(app, metas)


def handle_for(app: App, task_id: str) -> ResultHandle[Any]:
    """Return the handle of the result of `task_id`."""
    if _make_handle is None:
        return cast("ResultHandle[Any]", _Unconnected(task_id))
    return _make_handle(task_id, app)
