"""qworker: a multiprocess task-queue worker that speaks Celery's wire protocol.

Everything an application needs is here by name. Each name loads its module when it is first used, so that importing one
room, or asking for the version, does not load them all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .core.errors import AppImportError as AppImportError
    from .core.errors import ConfigError as ConfigError
    from .core.errors import Ignore as Ignore
    from .core.errors import MaxRetriesExceededError as MaxRetriesExceededError
    from .core.errors import MessageError as MessageError
    from .core.errors import NotRegistered as NotRegistered
    from .core.errors import QWorkerError as QWorkerError
    from .core.errors import Reject as Reject
    from .core.errors import ResultStoreError as ResultStoreError
    from .core.errors import ResultTimeout as ResultTimeout
    from .core.errors import Retry as Retry
    from .core.errors import SoftTimeLimitExceeded as SoftTimeLimitExceeded
    from .core.errors import TaskError as TaskError
    from .core.errors import TaskRevokedError as TaskRevokedError
    from .core.errors import TimeLimitExceeded as TimeLimitExceeded
    from .core.errors import TransportError as TransportError
    from .core.errors import WorkerLostError as WorkerLostError
    from .core.errors import WorkerShutdown as WorkerShutdown
    from .results import asyncresult
    from .tasks import App as App
    from .tasks import EagerResult as EagerResult
    from .tasks import EncodeError as EncodeError
    from .tasks import Signature as Signature
    from .tasks import Task as Task
    from .tasks import chain as chain
    from .tasks import current_app as current_app
    from .tasks import current_task as current_task
    from .tasks import get_task_logger as get_task_logger
    from .tasks import shared_task as shared_task
    from .tasks import signature as signature

    AsyncResult = asyncresult.AsyncResult

__version__ = "0.1.0"

_PLACES: Final = {
    "App": "tasks",
    "AppImportError": "core.errors",
    "AsyncResult": "results.asyncresult",
    "ConfigError": "core.errors",
    "EagerResult": "tasks",
    "EncodeError": "tasks",
    "Ignore": "core.errors",
    "MaxRetriesExceededError": "core.errors",
    "MessageError": "core.errors",
    "NotRegistered": "core.errors",
    "QWorkerError": "core.errors",
    "Reject": "core.errors",
    "ResultStoreError": "core.errors",
    "ResultTimeout": "core.errors",
    "Retry": "core.errors",
    "Signature": "tasks",
    "SoftTimeLimitExceeded": "core.errors",
    "Task": "tasks",
    "TaskError": "core.errors",
    "TaskRevokedError": "core.errors",
    "TimeLimitExceeded": "core.errors",
    "TransportError": "core.errors",
    "WorkerLostError": "core.errors",
    "WorkerShutdown": "core.errors",
    "chain": "tasks",
    "current_app": "tasks",
    "current_task": "tasks",
    "get_task_logger": "tasks",
    "shared_task": "tasks",
    "signature": "tasks",
}

__all__ = [*sorted(_PLACES), "__version__"]


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = importlib.import_module(f".{place}", __name__)
    if place == "tasks":
        room.connect_results(_result_of, _store)
    value = getattr(room, name)
    globals()[name] = value  # found directly from now on
    return value


def _result_of(task_id: str, app: Any) -> Any:
    """What sending a task returns: the results room lies above the tasks room, so they are connected here."""
    return (globals().get("AsyncResult") or __getattr__("AsyncResult"))(task_id, app)


def _store(app: Any, metas: Any) -> None:
    """Keep what is known of tasks that will never run, for the same reason."""
    from .results import store_metas

    store_metas(app, metas)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
