"""Transports by URL: the one way to get one. Called by the worker, by producers and by the command line.

An adapter is imported when a URL names its scheme, so that a SQLite user never loads the Redis adapter and the other
way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..core.errors import ConfigError
from ..core.settings_values import nearest
from ..core.urls import redact, scheme_of
from .base import Transport

_REDIS: Final = ("redis", "rediss", "redis+socket", "sentinel")
_KNOWN: Final = (*_REDIS, "sqlite", "sqs")


def open_transport(
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    owner: str = "",
    lease_s: float = 30.0,
    queues: Sequence[str] = (),
) -> Transport:
    """Return the transport for `url`, not yet connected. Raises ConfigError with every mistake in URL and options.

    `options` are the application's `broker_transport_options`; its `lease_timeout` wins over `lease_s`. `owner` names
    the worker that reserves (node name and boot nonce); a producer has none. `queues` are those that a worker will
    reserve from: where queues have to exist beforehand, connecting finds out whether they do.
    """
    scheme = scheme_of(url)
    if scheme in _REDIS:
        from .redis import RedisTransport

        return RedisTransport(url, options or {}, owner=owner, lease_s=lease_s)
    if scheme == "sqlite":
        from .sqlite import SqliteTransport

        return SqliteTransport(url, options or {}, owner=owner, lease_s=lease_s)
    if scheme == "sqs":
        from .sqs import SqsTransport

        return SqsTransport(url, options or {}, owner=owner, lease_s=lease_s, queues=queues)
    raise ConfigError(_refusal(url, scheme))


def preload(url: str) -> None:
    """Import what a producer for `url` takes long to import. Opens no connection, starts no thread, raises nothing."""
    if scheme_of(url) == "sqs":
        from .sqs_clients import preload_botocore

        preload_botocore()


def _refusal(url: str, scheme: str) -> str:
    shown = redact(url)
    if not scheme:
        return f"the broker {shown!r} is not a URL; write for example redis://localhost:6379/0 or sqlite:///qworker.db"
    hint = nearest(scheme, _KNOWN) or f"; known are {_listed()}"
    return f"the broker {shown} has the unknown scheme {scheme!r}{hint}"


def _listed() -> str:
    return ", ".join(f"{scheme}://" for scheme in _KNOWN)
