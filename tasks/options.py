"""Task options: what `@app.task(…)` accepts, and how an option that is not given falls back to a setting.

Called by app.py when a task is made; task_options.py declares the fallbacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..core.errors import ConfigError
from ..core.settings_values import (
    Converter,
    anything,
    boolean,
    integer,
    nearest,
    number,
    optional,
    seconds,
    text,
)

if TYPE_CHECKING:
    from .task import Task


class FromSetting:
    """A task attribute whose value is a setting's until a decorator, a subclass or an assignment says otherwise.

    Read at every use: settings may change after the task was made.
    """

    def __init__(self, setting: str, *fallbacks: str) -> None:
        self._setting = setting
        self._fallbacks = fallbacks

    def __get__(self, task: Task[..., Any] | None, owner: type[Task[..., Any]]) -> Any:
        if task is None:
            return self
        value = task.app.conf[self._setting]
        for name in self._fallbacks:
            if value is None:
                value = getattr(task, name)
        return value


def checked_options(task_name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options`, converted. Raises ConfigError with every unknown name and every wrong value."""
    checked, problems = {}, []
    for name, value in options.items():
        convert = _OPTIONS.get(name)
        if convert is None:
            problems.append(f"task {task_name}: there is no task option {name!r}" + nearest(name, _OPTIONS))
            continue
        try:
            checked[name] = convert(value)
        except ValueError as problem:
            problems.append(f"task {task_name}: {name}={value!r} {problem}")
    soft, hard = checked.get("soft_time_limit"), checked.get("time_limit")
    if soft and hard and soft > hard:
        problems.append(f"task {task_name}: soft_time_limit={soft} is above time_limit={hard}; it is never reached")
    if problems:
        raise ConfigError(*problems)
    return checked


def _exceptions(value: Any) -> tuple[type[BaseException], ...]:
    kinds = (value,) if isinstance(value, type) else tuple(value or ())
    if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        return kinds
    raise ValueError("must be exception classes")


def _backoff(value: Any) -> float:
    return float(value) if isinstance(value, bool) else float(number(value))


def _above_zero(value: Any) -> float:
    found = seconds(value)
    if found == 0:
        raise ValueError("must be more than 0 seconds")
    return found


def _function(value: Any) -> Any:
    if callable(value):
        return value
    raise ValueError("must be a function")


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueError("must be a dict")


_maybe_bool: Final = optional(boolean)
_maybe_seconds: Final = optional(seconds)

_OPTIONS: Final[Mapping[str, Converter]] = {
    "typing": boolean,
    "queue": optional(text),
    "routing_key": optional(text),
    "priority": optional(integer(0)),
    "expires": anything,
    "serializer": text,
    "compression": optional(text),
    "shadow_name": _function,
    "acks_late": _maybe_bool,
    "acks_on_failure": _maybe_bool,
    "acks_on_timeout": _maybe_bool,
    "acks_on_failure_or_timeout": _maybe_bool,
    "reject_on_worker_lost": _maybe_bool,
    "ignore_result": _maybe_bool,
    "store_errors_even_if_ignored": _maybe_bool,
    "store_eager_result": _maybe_bool,
    "track_started": _maybe_bool,
    "trail": boolean,
    "send_events": boolean,
    "time_limit": _maybe_seconds,
    "soft_time_limit": _maybe_seconds,
    "max_retries": optional(integer(0)),
    "default_retry_delay": seconds,
    "autoretry_for": _exceptions,
    "dont_autoretry_for": _exceptions,
    "retry_kwargs": _mapping,
    "retry_backoff": _backoff,
    "retry_backoff_max": seconds,
    "retry_jitter": boolean,
    "throws": _exceptions,
    "rate_limit": anything,
    "rate_limit_scope": text,
    "unique": boolean,
    "unique_for": optional(_above_zero),
    "concurrency": optional(integer(1)),
    "concurrency_key": anything,
}
