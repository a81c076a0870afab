"""The table of tasks.md: every option of `@app.task`, with its default and what it means."""

from __future__ import annotations

from typing import Any, Final

from qworker import Task
from qworker.tasks.options import _OPTIONS, FromSetting

from .tables import table

NOTES: Final = {
    "acks_late": "ack after the result is stored; false: at the start (at most once)",
    "acks_on_failure": "false: a failed run is set aside instead of acked",
    "acks_on_failure_or_timeout": "the default of the two beside it",
    "acks_on_timeout": "false: a run that was killed at its hard limit is a counted crash",
    "autoretry_for": "exceptions after which it is tried again",
    "compression": "of its messages: `gzip`, `bzip2`, `zlib`, …",
    "concurrency": "not in this version",
    "concurrency_key": "not in this version",
    "default_retry_delay": "seconds to the next attempt when `retry()` names none",
    "dont_autoretry_for": "exceptions of these that are failures all the same",
    "expires": "seconds, or a time: not run later",
    "ignore_result": "store no result",
    "max_retries": "attempts after the first; none: without limit",
    "priority": "0 (first) to 9",
    "queue": "where it is sent; none: by `task_routes`, else `task_default_queue`",
    "rate_limit": "not in this version",
    "rate_limit_scope": "not in this version",
    "reject_on_worker_lost": "false: a run whose child died is a failure; else it is repeated",
    "retry_backoff": "the waits of automatic retries double: 1, 2, 4 … times this number of seconds; true is 1",
    "retry_backoff_max": "and grow to this many seconds at most",
    "retry_jitter": "each is drawn between 0 and that value",
    "retry_kwargs": "what automatic retries give to `retry()`",
    "routing_key": "another word for `queue`",
    "send_events": "not in this version",
    "serializer": "of its messages",
    "shadow_name": "a function that gives a call the name that logs show",
    "soft_time_limit": "seconds; then SoftTimeLimitExceeded is raised in it",
    "store_eager_result": "with `task_always_eager`",
    "store_errors_even_if_ignored": "with `ignore_result`: store failures",
    "throws": "expected exceptions: logged without a traceback",
    "time_limit": "seconds; then its child is killed",
    "track_started": "store the state STARTED",
    "trail": "list the tasks that it sends as children of its result",
    "typing": "check arguments when it is sent, not only when it runs",
    "unique": "a `task_id` that is given is sent once while its first message lives",
    "unique_for": "seconds after which it may be sent again at the latest; none: a day",
}


def options() -> str:
    """One row for each option."""
    return table(("option", "default", "meaning"), [(f"`{n}`", _default(n), NOTES[n]) for n in sorted(_OPTIONS)])


def _default(name: str) -> str:
    value: Any = getattr(Task, name)
    if isinstance(value, FromSetting):
        return f"the setting `{value._setting}`"
    return "none" if value is None else f"`{value!r}`"
