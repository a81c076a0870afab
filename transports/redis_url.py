"""From a `redis://`, `rediss://`, `redis+socket://` or `sentinel://` URL and the transport options to what a connection
needs.

Every mistake of URL and options is reported at once, as a ConfigError; nothing here speaks to the network.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..core.errors import ConfigError
from ..core.settings_values import Converter, boolean, integer, mapping, number, text
from ..core.urls import has_bare_login, redact
from .options import positive, read_options, steps
from .order import ORDER_OPTIONS
from .redis_tls import TLS_OPTIONS, tls_of

_TIMEOUT_S: Final = 5.0
#: A sentinel that is down must not use up the time of those that are not.
_SENTINEL_TIMEOUT_S: Final = 1.0


def _separator(value: Any) -> str:
    if not text(value):
        raise ValueError("must not be empty")
    return str(value)


def _keepalive_options(value: Any) -> dict[int, int]:
    """`{socket.TCP_KEEPIDLE: 60}`; the names of the constants do as well, and numbers as text (JSON has no others)."""
    found = {}
    for option, setting in mapping(value).items():
        known = getattr(socket, str(option), option) if str(option).startswith("TCP_KEEP") else option
        try:
            found[int(known)] = int(setting)
        except (TypeError, ValueError):
            raise ValueError("must be a dict such as {socket.TCP_KEEPIDLE: 60}") from None
    return found


_CONNECTION: Final[Mapping[str, Converter]] = {
    "socket_timeout": positive,
    "socket_connect_timeout": positive,
    "socket_keepalive": boolean,
    "health_check_interval": number,
    "client_name": text,
    **TLS_OPTIONS,
}
_TABLE: Final[Mapping[str, Converter]] = {
    "lease_timeout": positive,
    "visibility_timeout": positive,
    "global_keyprefix": text,
    "priority_steps": steps,
    "sep": _separator,
    **ORDER_OPTIONS,
    "unacked_key": text,
    "unacked_index_key": text,
    "unacked_mutex_key": text,
    "socket_keepalive_options": _keepalive_options,
    "master_name": text,
    "min_other_sentinels": integer(0),
    "sentinel_kwargs": mapping,
    **_CONNECTION,
}
_SENTINEL: Final[Mapping[str, Converter]] = {
    "username": text,
    "password": text,
    "socket_keepalive_options": _keepalive_options,
    **_CONNECTION,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to connect. `shown` is the URL without secrets. Times are in seconds.

    With `sentinels`, host and port are those of nobody: the sentinels are asked where the master is. `address` is
    where the host was found, for another connection to the very same server.
    """

    shown: str
    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: Mapping[str, Any] | None = field(default=None, repr=False)
    timeout_s: float = _TIMEOUT_S
    connect_timeout_s: float = _TIMEOUT_S
    keepalive: bool = True
    keepalive_options: Mapping[int, int] = field(default_factory=dict)
    check_after_s: float = 25.0
    client_name: str = ""
    address: tuple[str, int] | None = None
    sentinels: tuple[Endpoint, ...] = ()
    master_name: str = ""
    min_other_sentinels: int = 0

    def with_patience(self, most_s: float) -> Endpoint:
        """The same with time-outs of at most so long, and at least a second: for who has a lease to renew."""
        most_s = max(1.0, most_s)
        timeout_s, connect_s = min(self.timeout_s, most_s), min(self.connect_timeout_s, most_s)
        return replace(self, timeout_s=timeout_s, connect_timeout_s=connect_s)


def read_url(url: str, options: Mapping[str, Any]) -> tuple[Endpoint, dict[str, Any]]:
    """Return the endpoint and the checked options. What stands in the URL wins over the options. Raises ConfigError."""
    shown = redact(url)
    if any(has_bare_login(part) for part in url.split(";")):
        raise ConfigError(
            f"the password of the broker {shown} holds characters that have to be percent-encoded: "
            "@ is %40, / is %2F, ? is %3F, # is %23"
        )
    try:
        parts = _split(url)
    except ValueError as problem:
        raise ConfigError(f"the broker {shown} is no usable URL: {problem}") from None
    problems: list[str] = []
    query = dict(pair for part in parts for pair in parse_qsl(part.query))
    vhost = query.pop("virtual_host", None) or query.pop("db", None)
    if parts[0].scheme == "sentinel":
        known = {**_CONNECTION, "master_name": text, "min_other_sentinels": integer(0)}
    else:
        known = dict(_CONNECTION)
    problems += [f"the broker {shown} has an unknown parameter {name!r}" for name in query if name not in known]
    given = {**options, **{name: value for name, value in query.items() if name in known}}
    ports = [_port(part, shown, problems) for part in parts]
    db = _db(parts, vhost, shown, problems)
    sentinels = _sentinels(parts, ports, given, problems) if parts[0].scheme == "sentinel" else ()
    if parts[0].scheme == "redis+socket" and any(name in TLS_OPTIONS for name in given):
        problems.append(f"the broker {shown} is a unix socket, which knows no TLS; take out the ssl options")
    found = read_options(given, _TABLE, problems)
    return _endpoint(parts, shown, ports[0], db, found, sentinels), found


def _split(url: str) -> list[SplitResult]:
    """The URL's parts; of several sentinels, each one's (those behind the first may leave the scheme out)."""
    if not url.lower().startswith("sentinel://"):
        return [urlsplit(url)]
    urls = [part for part in url.split(";") if part]
    return [urlsplit(part if "://" in part else f"sentinel://{part}") for part in urls]


def _endpoint(
    parts: Sequence[SplitResult],
    shown: str,
    port: int,
    db: int,
    found: Mapping[str, Any],
    sentinels: tuple[Endpoint, ...],
) -> Endpoint:
    login = next((part for part in parts if part.username or part.password), parts[0])
    return Endpoint(
        shown=shown,
        host=unquote(parts[0].hostname or "localhost"),
        port=port,
        path=unquote(parts[0].path) if parts[0].scheme == "redis+socket" else "",
        db=db,
        username=unquote(login.username or ""),
        password=unquote(login.password or ""),
        tls=tls_of(found, wanted=parts[0].scheme == "rediss"),
        sentinels=sentinels,
        master_name=found.get("master_name", ""),
        min_other_sentinels=found.get("min_other_sentinels", 0),
        **_manners(found, _TIMEOUT_S),
    )


def _manners(found: Mapping[str, Any], default_s: float) -> dict[str, Any]:
    """How to behave on a connection: what is the same for a server and for a sentinel."""
    timeout_s = found.get("socket_timeout", default_s)
    return {
        "timeout_s": timeout_s,
        "connect_timeout_s": found.get("socket_connect_timeout", timeout_s),
        "keepalive": found.get("socket_keepalive", True),
        "keepalive_options": found.get("socket_keepalive_options", {}),
        "check_after_s": float(found.get("health_check_interval", 25.0)),
        "client_name": found.get("client_name", ""),
    }


def _sentinels(
    parts: Sequence[SplitResult], ports: Sequence[int], given: Mapping[str, Any], problems: list[str]
) -> tuple[Endpoint, ...]:
    """Where the sentinels are, and how to log in there: the URL's password is the master's, not theirs."""
    if not given.get("master_name"):
        problems.append("broker_transport_options has no 'master_name'; a sentinel:// URL needs the master's name")
    own = given.get("sentinel_kwargs")
    try:
        found = read_options(own if isinstance(own, Mapping) else {}, _SENTINEL, where="sentinel_kwargs")
    except ConfigError as error:
        problems += error.problems
        return ()
    return tuple(
        Endpoint(
            shown=f"sentinel {part.hostname or 'localhost'}:{port}",
            host=unquote(part.hostname or "localhost"),
            port=port,
            username=found.get("username", ""),
            password=found.get("password", ""),
            tls=tls_of(found, wanted=False),
            **_manners(found, _sentinel_timeout(given)),
        )
        for part, port in zip(parts, ports, strict=True)
    )


def _sentinel_timeout(given: Mapping[str, Any]) -> float:
    try:
        return min(_SENTINEL_TIMEOUT_S, positive(given.get("socket_timeout", _SENTINEL_TIMEOUT_S)))
    except ValueError:  # told with the other problems
        return _SENTINEL_TIMEOUT_S


def _port(part: SplitResult, shown: str, problems: list[str]) -> int:
    try:
        return part.port or (26379 if part.scheme == "sentinel" else 6379)
    except ValueError:
        problems.append(f"the broker {shown} has a port that is no number from 1 to 65535")
        return 0


def _db(parts: Sequence[SplitResult], vhost: str | None, shown: str, problems: list[str]) -> int:
    """The database number: the path of a TCP URL (of sentinels, any one's), the `virtual_host` of a socket URL."""
    paths = [part.path.strip("/") for part in parts]
    is_socket = parts[0].scheme == "redis+socket"
    if is_socket and not paths[0]:
        problems.append(f"the broker {shown} names no socket; write redis+socket:///path/to/redis.sock?virtual_host=0")
    named = {vhost.strip("/")} if vhost else set() if is_socket else set(filter(None, paths))
    if len(named) > 1:
        problems.append(f"the broker {shown} names several databases; write the same one behind each sentinel")
    digits = (named.pop() if named else "") or "0"
    if digits.isdecimal():
        return int(digits)
    problems.append(f"the broker {shown} names the database {digits!r}, which is no number; end the URL with /0")
    return 0
