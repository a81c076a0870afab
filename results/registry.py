"""Result stores by URL. Called by the worker, AsyncResult and the command line; loads only the store that is named."""

from __future__ import annotations

from typing import Final

from ..core.errors import ConfigError
from ..core.settings_values import nearest
from ..core.urls import redact, scheme_of
from .base import ResultStore, SettingsLike

_REDIS: Final = ("redis", "rediss", "redis+socket", "sentinel")
_KNOWN: Final = (*_REDIS, "sqlite", "dynamodb", "disabled")


def open_result_store(url: str | None, *, settings: SettingsLike) -> ResultStore | None:
    """Return the store for `url`, not yet connected; None for no URL and for `disabled://`, when no results are kept.

    `settings` are the application's (`result_expires`, `result_failure_expires`, `result_compression`,
    `result_backend_transport_options`, `redis_socket_timeout`, `redis_backend_use_ssl`,
    `dynamodb_endpoint_url`). Raises ConfigError.
    """
    if not url:
        return None
    scheme = scheme_of(url)
    if scheme == "disabled":
        return None
    if scheme in _REDIS:
        from .redis import RedisResultStore

        return RedisResultStore(url, settings)
    if scheme == "sqlite":
        from .sqlite import SqliteResultStore

        return SqliteResultStore(_path(url), settings)
    if scheme == "dynamodb":
        from .dynamodb import DynamoDbResultStore

        return DynamoDbResultStore(url, settings)
    raise ConfigError(_refusal(url, scheme))


def _path(url: str) -> str:
    """`sqlite:///results.db` is in the working directory, `sqlite:////var/lib/results.db` is absolute."""
    host, _, path = url[len("sqlite://") :].partition("/")
    if host or not path or path.startswith(":"):
        raise ConfigError(
            f"the result backend {redact(url)} names no file; write sqlite:///results.db or sqlite:////dir/results.db"
        )
    return path


def _refusal(url: str, scheme: str) -> str:
    if not scheme:
        return f"the result backend {redact(url)!r} is not a URL; write for example redis://localhost:6379/1"
    hint = nearest(scheme, _KNOWN) or f"; it can be {', '.join(_KNOWN[:-1])}"
    return f"the result backend {redact(url)} has an unknown scheme {scheme!r}{hint}"
