"""Which queue a task goes to when the call names none.

The order: the call's own `queue`, the task's `queue` option, the first match in `task_routes`, `task_default_queue`.
`task_routes` is a dict from task name or glob pattern to a queue name or `{"queue": …}`, a list of such dicts (or of
pairs), or a function `(name, args, kwargs, options, task=…)` that returns one of these or None. Called by
publishing.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from re import Pattern
from typing import Any, NamedTuple

from ..core.errors import ConfigError


class Route(NamedTuple):
    """What a routing rule decides; None where it leaves the decision to others."""

    queue: str | None = None
    priority: int | None = None


def find_route(
    routes: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
) -> Route:
    """Return what the first rule in `routes` that matches task `name` says; an empty Route if none does.

    Raises ConfigError for a rule that cannot be understood.
    """
    for rule in _rules(routes):
        found = _apply(rule, name, args, kwargs, options)
        if found is not None:
            return _as_route(found)
    return Route()


def queues_in(routes: Any) -> Iterator[str]:
    """Every queue that the rules name; what a function would say is not known."""
    for rule in _rules(routes):
        if isinstance(rule, Mapping):
            for found in rule.values():
                queue = _as_route(found).queue
                if queue is not None:
                    yield queue


def _rules(routes: Any) -> Iterable[Any]:
    if not routes:
        return ()
    if isinstance(routes, Mapping | str) or callable(routes):
        return (routes,)
    if isinstance(routes, list | tuple):
        # A list of (pattern, route) pairs is one rule in an order of its own.
        is_pairs = all(isinstance(rule, list | tuple) and len(rule) == 2 for rule in routes)
        return (dict(routes),) if is_pairs else routes
    raise ConfigError(f"task_routes is a {type(routes).__name__}; it must be a dict, a list of dicts or a function")


def _apply(rule: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> Any:
    if isinstance(rule, Mapping):
        if name in rule:
            return rule[name]
        return next((found for pattern, found in rule.items() if _matches(pattern, name)), None)
    if isinstance(rule, str):
        rule = _imported(rule)
    if not callable(rule):
        raise ConfigError(f"task_routes holds {rule!r:.80}, which is neither a dict nor a function")
    return rule(name, args, kwargs, options)


def _matches(pattern: Any, name: str) -> bool:
    if isinstance(pattern, Pattern):
        return pattern.match(name) is not None
    return isinstance(pattern, str) and "*" in pattern and fnmatchcase(name, pattern)


def _as_route(found: Any) -> Route:
    if isinstance(found, str):
        return Route(queue=found)
    if isinstance(found, Mapping):
        queue = found.get("queue", found.get("routing_key"))
        # Celery's own queue objects have a name.
        return Route(getattr(queue, "name", queue), found.get("priority"))
    raise ConfigError(f"task_routes holds the route {found!r:.80}; it must be a queue name or {{'queue': name}}")


def _imported(path: str) -> Any:
    module, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as problem:
        raise ConfigError(f"task_routes names {path!r}, which cannot be imported: {problem}") from problem
