"""The options of a task, as attributes, and what each is where nobody has set it. The base of `Task` (task.py).

What `@app.task(…)` accepts for them, and how an option falls back to a setting, is in options.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from .options import FromSetting


def _setting(name: str, *fallbacks: str) -> Any:
    return FromSetting(name, *fallbacks)


class TaskOptions:
    """A subclass of `Task`, `@app.task` or an assignment sets them."""

    typing: bool = True
    queue: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    expires: float | timedelta | datetime | None = None
    serializer: str = _setting("task_serializer")
    compression: str | None = _setting("task_compression")
    shadow_name: Callable[..., str | None] | None = None
    acks_late: bool = _setting("task_acks_late")
    acks_on_failure_or_timeout: bool = _setting("task_acks_on_failure_or_timeout")
    acks_on_failure: bool = _setting("task_acks_on_failure", "acks_on_failure_or_timeout")
    acks_on_timeout: bool = _setting("task_acks_on_timeout", "acks_on_failure_or_timeout")
    #: None and True: a run whose child died is repeated; False: it is a failure.
    reject_on_worker_lost: bool | None = _setting("task_reject_on_worker_lost")
    ignore_result: bool = _setting("task_ignore_result")
    store_errors_even_if_ignored: bool = _setting("task_store_errors_even_if_ignored")
    store_eager_result: bool = _setting("task_store_eager_result")
    track_started: bool = _setting("task_track_started")
    #: Whether tasks that this one sends are listed in its result as its children.
    trail: bool = True
    send_events: bool = True
    time_limit: float | None = _setting("task_time_limit")
    soft_time_limit: float | None = _setting("task_soft_time_limit")
    max_retries: int | None = 3
    default_retry_delay: float = 180
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_kwargs: Mapping[str, Any] = {}
    retry_backoff: float = 0
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    #: Expected exceptions: logged without a traceback.
    throws: tuple[type[BaseException], ...] = ()
    rate_limit: Any = _setting("task_default_rate_limit")
    rate_limit_scope: str = "worker"
    #: Whether a `task_id` that is given is published only when no message with this id waits, is delayed or runs.
    unique: bool = False
    #: Seconds, counted from when it is due, after which it may be published again at the latest; None = a day.
    unique_for: float | None = None
    concurrency: int | None = None
    concurrency_key: Any = None
