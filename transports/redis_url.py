"""From a `redis://`, `rediss://` or `redis+socket://` URL and the transport options to what a connection needs.

Every mistake of URL and options is reported at once, as a ConfigError; nothing here speaks to the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..core.errors import ConfigError
from ..core.settings_values import Converter, boolean, choice, number, text
from ..core.urls import redact
from .options import positive, read_options, steps


def _separator(value: Any) -> str:
    if not text(value):
        raise ValueError("must not be empty")
    return str(value)


_TLS: Final[Mapping[str, Converter]] = {
    "ssl_cert_reqs": lambda value: choice("required", "optional", "none")(str(value).lower().removeprefix("cert_")),
    "ssl_ca_certs": text,
    "ssl_certfile": text,
    "ssl_keyfile": text,
    "ssl_check_hostname": boolean,
}
_CONNECTION: Final[Mapping[str, Converter]] = {
    "socket_timeout": positive,
    "socket_connect_timeout": positive,
    "socket_keepalive": boolean,
    "health_check_interval": number,
    "client_name": text,
    **_TLS,
}
_TABLE: Final[Mapping[str, Converter]] = {
    "lease_timeout": positive,
    "global_keyprefix": text,
    "priority_steps": steps,
    "sep": _separator,
    "queue_order_strategy": choice("round_robin", "sorted", "priority"),
    "unacked_key": text,
    "unacked_index_key": text,
    "unacked_mutex_key": text,
    **_CONNECTION,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to connect. `shown` is the URL without secrets. Times are in seconds."""

    shown: str
    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: Mapping[str, Any] | None = None
    timeout_s: float = 5.0
    connect_timeout_s: float = 5.0
    keepalive: bool = True
    check_after_s: float = 25.0
    client_name: str = ""


def read_url(url: str, options: Mapping[str, Any]) -> tuple[Endpoint, dict[str, Any]]:
    """Return the endpoint and the checked options. What stands in the URL wins over the options. Raises ConfigError."""
    shown = redact(url)
    try:
        parts = urlsplit(url)
    except ValueError as problem:
        raise ConfigError(f"the broker {shown} is no usable URL: {problem}") from None
    problems: list[str] = []
    query = dict(parse_qsl(parts.query))
    vhost = query.pop("virtual_host", None) or query.pop("db", None)
    problems += [f"the broker {shown} has an unknown parameter {name!r}" for name in query if name not in _CONNECTION]
    known = {name: value for name, value in query.items() if name in _CONNECTION}
    port = _port(parts, shown, problems)
    db = _db(parts, vhost, shown, problems)
    found = read_options({**options, **known}, _TABLE, problems)
    return _endpoint(parts, shown, port, db, found), found


def _endpoint(parts: SplitResult, shown: str, port: int, db: int, found: Mapping[str, Any]) -> Endpoint:
    timeout_s = found.get("socket_timeout", 5.0)
    return Endpoint(
        shown=shown,
        host=unquote(parts.hostname or "localhost"),
        port=port,
        path=unquote(parts.path) if parts.scheme == "redis+socket" else "",
        db=db,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls={name: found[name] for name in _TLS if name in found} if parts.scheme == "rediss" else None,
        timeout_s=timeout_s,
        connect_timeout_s=found.get("socket_connect_timeout", timeout_s),
        keepalive=found.get("socket_keepalive", True),
        check_after_s=float(found.get("health_check_interval", 25.0)),
        client_name=found.get("client_name", ""),
    )


def _port(parts: SplitResult, shown: str, problems: list[str]) -> int:
    try:
        return parts.port or 6379
    except ValueError:
        problems.append(f"the broker {shown} has a port that is no number from 1 to 65535")
        return 0


def _db(parts: SplitResult, vhost: str | None, shown: str, problems: list[str]) -> int:
    """The database number: the path of a TCP URL, the parameter `virtual_host` of a socket URL."""
    if parts.scheme == "redis+socket" and not parts.path.strip("/"):
        problems.append(f"the broker {shown} names no socket; write redis+socket:///path/to/redis.sock?virtual_host=0")
    named = (vhost if parts.scheme == "redis+socket" else vhost or parts.path) or "0"
    digits = named.strip("/") or "0"
    if digits.isdecimal():
        return int(digits)
    problems.append(f"the broker {shown} names the database {digits!r}, which is no number; end the URL with /0")
    return 0
