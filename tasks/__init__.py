"""What users write and what travels: App, Task, messages, canvas, and the execution of a message in a child.

Names are loaded when they are first asked for: the master needs only the plain data of outcome.py, and a producer no
executor.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .app import App as App
    from .canvas import Signature as Signature
    from .canvas import chain as chain
    from .canvas import signature as signature
    from .codec import identify as identify
    from .context import Context as Context
    from .context import current_task as current_task
    from .context import running_context as running_context
    from .current import current_app as current_app
    from .current import shared_task as shared_task
    from .eager import EagerResult as EagerResult
    from .execute import TaskExecutor as TaskExecutor
    from .handles import connect_results as connect_results
    from .interrupts import Hooks as Hooks
    from .interrupts import Order as Order
    from .loader import find_app as find_app
    from .logs import get_task_logger as get_task_logger
    from .lost import lost_outcome as lost_outcome
    from .moments import parse_datetime as parse_datetime
    from .outcome import NOTHING as NOTHING
    from .outcome import Action as Action
    from .outcome import Outcome as Outcome
    from .task import Task as Task
    from .tracing import preload_tracing as preload_tracing
    from .typed_json import EncodeError as EncodeError
    from .typed_json import loads as loads
    from .usage import meter as meter

_PLACES: Final = {
    "Action": "outcome",
    "NOTHING": "outcome",
    "App": "app",
    "Context": "context",
    "EagerResult": "eager",
    "EncodeError": "typed_json",
    "Hooks": "interrupts",
    "Order": "interrupts",
    "Outcome": "outcome",
    "Signature": "canvas",
    "Task": "task",
    "TaskExecutor": "execute",
    "chain": "canvas",
    "connect_results": "handles",
    "current_app": "current",
    "current_task": "context",
    "find_app": "loader",
    "get_task_logger": "logs",
    "identify": "codec",
    "loads": "typed_json",
    "lost_outcome": "lost",
    "meter": "usage",
    "parse_datetime": "moments",
    "preload_tracing": "tracing",
    "running_context": "context",
    "shared_task": "current",
    "signature": "canvas",
}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{place}", __name__), name)
    globals()[name] = value
    return value
