"""What a call returns: the promise of a result. The results room's AsyncResult and an eager run's EagerResult keep it.

The results room lies above this one, so its class is fetched when the first result is asked for, by name. This is the
one place in the room that reaches upwards; everything else sees only the protocol.
"""

from __future__ import annotations

import importlib
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


def handle_for(app: App, task_id: str) -> ResultHandle[Any]:
    """Return the AsyncResult of `task_id`."""
    room = importlib.import_module("..results.asyncresult", __package__)
    return cast("ResultHandle[Any]", room.AsyncResult(task_id, app))
