"""When and how often a task runs again. Everything here is a function of its arguments.

Called by `Task.retry`, by the wrapper around tasks with `autoretry_for`, and by the executor, which turns the plan
that a `Retry` carries into the message's successor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..core.errors import Ignore, MaxRetriesExceededError, Reject, Retry, WorkerShutdown
from .moments import from_now

if TYPE_CHECKING:
    from random import Random

    from .context import Context
    from .task import Task

_Run = TypeVar("_Run", bound=Callable[..., Any])

#: Beyond this many doublings every maximum has been reached, and 2**retries would only grow expensive.
_MOST_DOUBLINGS: Final = 62

#: What `Task.retry(**options)` may change in the message, besides when it runs and with what.
RETRY_OPTIONS: Final = frozenset(
    {"queue", "priority", "expires", "time_limit", "soft_time_limit", "shadow", "ignore_result", "headers"}
)


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """The next attempt: `retries` is its number, `due` the moment (epoch seconds) before which it must not run.

    `args` and `kwargs` are None where they stay as they are; `options` holds what else changes (RETRY_OPTIONS).
    """

    retries: int
    due: float
    args: Any = None
    kwargs: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)


def plan_of(retry: Retry, task: Task[..., Any], context: Context, now: float) -> RetryPlan:
    """Return the plan that `Task.retry` has put into `retry`; for one raised by hand, make it from its `when`.

    Raises MaxRetriesExceededError for one raised by hand when the task has no retry left.
    """
    plan = vars(retry).get("plan")
    if isinstance(plan, RetryPlan):
        return plan
    if not may_retry(context.retries, task.max_retries):
        raise out_of_retries(task.name, context, context.args, context.kwargs)
    zone = task.app.conf.timezone
    return RetryPlan(context.retries + 1, due_at(retry.when, task.default_retry_delay, now, zone))


def attach(retry: Retry, plan: RetryPlan) -> Retry:
    """Put `plan` into `retry`, where `plan_of` finds it."""
    vars(retry)["plan"] = plan
    return retry


def may_retry(retries: int, max_retries: int | None) -> bool:
    """Whether a run that has been retried `retries` times may be retried once more; None allows any number."""
    return max_retries is None or retries < max_retries


def due_at(when: float | datetime | None, default_delay_s: float, now: float, zone_name: str) -> float:
    """Return the moment that `when` means: seconds from now, a datetime, or None for the default delay."""
    return from_now(default_delay_s if when is None else when, now, zone_name)


def backoff_s(retries: int, *, factor: float, maximum: float, jitter: bool, rng: Random | None = None) -> int:
    """Return the whole seconds to wait after `retries` retries: `factor`, twice that, four times, … up to `maximum`.

    With `jitter` it is drawn evenly from 0 to that value.
    """
    wait: int = min(int(maximum), int(max(1.0, factor)) * 2 ** min(retries, _MOST_DOUBLINGS))
    if jitter:
        import random  # brings hashes and OpenSSL along

        wait = (rng or random).randrange(wait + 1)
    return max(0, wait)


def out_of_retries(name: str, context: Context, args: Any, kwargs: Any) -> MaxRetriesExceededError:
    """Return the error that says so."""
    text = f"Can't retry {name}[{context.id}] args:{args!r:.200} kwargs:{kwargs!r:.200}"
    return MaxRetriesExceededError(text, task_args=args, task_kwargs=kwargs)


def retrying(task: Task[..., Any], run: _Run) -> _Run:
    """Return `run`, retried by itself when it raises one of `autoretry_for` that is not in `dont_autoretry_for`."""

    @functools.wraps(run)
    def run_or_retry(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except (Ignore, Reject, Retry, WorkerShutdown):
            raise
        except task.dont_autoretry_for:
            raise
        except task.autoretry_for as problem:
            raise task.retry(exc=problem, **_autoretry_options(task)) from problem

    return run_or_retry  # type: ignore[return-value]


def _autoretry_options(task: Task[..., Any]) -> dict[str, Any]:
    options = dict(task.retry_kwargs)
    if task.retry_backoff:
        options["countdown"] = backoff_s(
            task.request.retries,
            factor=task.retry_backoff,
            maximum=task.retry_backoff_max,
            jitter=task.retry_jitter,
        )
    return options
