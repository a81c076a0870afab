"""`broker_transport_options`: checked at once, every mistake named, so that a misspelt option is never silently
ignored.

Called by the adapters; each knows its own table. Options of Celery's transports that have no meaning here are
accepted, because an existing configuration has to load.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..core.errors import ConfigError
from ..core.settings_values import Converter, nearest
from ..core.urls import scheme_of

logger = logging.getLogger("qworker.transports")

# Accepted everywhere, without an effect where an adapter's own table does not name them.
IDLE_OPTIONS: Final = frozenset(
    {
        "ack_emulation",
        "fanout_patterns",
        "fanout_prefix",
        "max_connections",
        "max_retries",
        "interval_start",
        "interval_step",
        "interval_max",
        "polling_interval",
        "reauth_check_interval",
        "retry_on_timeout",
        "sentinel_fanout_compat",
        "unacked_mutex_expire",
        "unacked_restore_interval",
        "unacked_restore_limit",
        "unacked_restore_throttle",
        "visibility_timeout",
    }
)


def broker_options(conf: Any) -> dict[str, Any]:
    """Return an application's `broker_transport_options`, with settings among them that an adapter has to know.

    `broker_use_ssl` where the broker is a Redis, `task_create_missing_queues` where it is SQS.

    `conf` are its settings, an object or a dict. Options win over `broker_use_ssl`. Raises ConfigError.
    """
    options = dict(conf["broker_transport_options"])
    if scheme_of(conf["broker_url"]) == "sqs":
        return {"create_missing_queues": conf["task_create_missing_queues"], **options}
    if not scheme_of(conf["broker_url"]).startswith(("redis", "sentinel")):
        return options
    return {**tls_options(conf["broker_use_ssl"], "broker_use_ssl"), **options}


def tls_options(use_ssl: Any, name: str) -> dict[str, Any]:
    """Return the transport options that stand for `use_ssl`: a dict of them, or whether to use TLS at all."""
    if use_ssl is None or isinstance(use_ssl, bool):
        return {"ssl": True} if use_ssl else {}
    if isinstance(use_ssl, Mapping):
        return {"ssl": True, **use_ssl}
    raise ConfigError(f"{name} must be True, False, or a dict such as {{'ssl_cert_reqs': 'required'}}")


def read_options(
    given: Mapping[str, Any],
    table: Mapping[str, Converter],
    problems: list[str] | None = None,
    *,
    where: str = "broker_transport_options",
) -> dict[str, Any]:
    """Return the options that `table` names, converted; options that are None count as not given.

    `problems` are those found before, in the URL; `where` is what the user calls these options. Raises ConfigError with
    one sentence for each problem.
    """
    found: dict[str, Any] = {}
    problems = list(problems or ())
    for name, value in given.items():
        if name not in table:
            problems.extend(_unknown(name, table, where))
        elif value is not None:
            try:
                found[name] = table[name](value)
            except ValueError as problem:
                problems.append(f"{where}[{name!r}] {problem}")
    if problems:
        raise ConfigError(*problems)
    return found


def positive(value: Any) -> float:
    """A number above 0; a string of digits, as in a URL, is converted."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError("must be a number above 0")
    return number


def lease_option(options: Mapping[str, Any], default_s: float) -> float:
    """The lease in seconds that `options` ask for, read as the adapters read it. Raises ConfigError."""
    given = {"lease_timeout": options.get("lease_timeout")}
    return float(read_options(given, {"lease_timeout": positive}).get("lease_timeout", default_s))


def steps(value: Any) -> tuple[int, ...]:
    """Priority steps: whole numbers, 0 or more, in rising order, 0 the first."""
    numbers = tuple(value) if isinstance(value, list | tuple | range) else ()
    if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise ValueError("must be a list of whole numbers, for example [0, 3, 6, 9]")
    if list(numbers) != sorted(set(numbers)) or numbers[0] != 0:
        raise ValueError("must begin with 0 and rise")
    return numbers


def _unknown(name: str, table: Iterable[str], where: str) -> list[str]:
    if name in IDLE_OPTIONS:
        logger.debug("%s: %s has no meaning here", where, name)
        return []
    return [f"{where} has no {name!r}{nearest(name, {*table, *IDLE_OPTIONS})}"]
