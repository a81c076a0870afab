"""What the master can still say about a message whose child died: read from the envelope, without the application."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from ..core.errors import TaskError
from .codec import identify
from .outcome import Action, Outcome
from .outcome_meta import failure_meta


def lost_outcome(raw: bytes, error: TaskError, details: Mapping[str, Any], final_tasks: Container[str]) -> Outcome:
    """Return what becomes of the message in `raw`: REQUEUE, or ACK for one of `final_tasks`: its crash is its failure.

    `meta` says FAILURE with `error`, to be stored only if the message is not run again; it is None when the message
    has no usable id. Never raises, whatever the bytes are.
    """
    task_id, task = identify(raw)
    outcome = Outcome(Action.ACK if task in final_tasks else Action.REQUEUE, task_id or "")
    outcome.meta = failure_meta(task_id, error) if task_id else None
    outcome.details = {"error": str(error), "task": task, "id": task_id, **details}
    return outcome
