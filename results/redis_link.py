"""One connection to the Redis of the result store: time-outs on everything, every error a ResultStoreError.

Used by `results/redis.py` only. It speaks through redis-py's Connection (its parser, TLS and authentication) without
its client and pool: a batch is packed once, written once, and its replies are read in one go.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import redis.exceptions
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from ..core.errors import ConfigError, ResultStoreError
from ..core.urls import redact
from .base import SettingsLike

Command = tuple[object, ...]

# The worker's consumer thread, which also renews its leases, waits for these calls: Celery's default of 120 s would
# cost it everything it holds.
_LONGEST_S: Final = 10.0
_CONNECT_S: Final = 5.0
_DROPPED: Final = (redis.exceptions.ConnectionError, OSError)
_TLS_PARAMETERS: Final = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
# Celery writes the constants of the ssl module, redis-py wants words.
_CERT_REQS: Final = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where and how to connect. `shown` is the URL without its secrets, for messages."""

    shown: str
    kind: Callable[..., Any]
    options: Mapping[str, Any]


def address_of(url: str, settings: SettingsLike) -> Address:
    """Read `redis://`, `rediss://` or `redis+socket://` and the settings that go with it. Raises ConfigError."""
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    options: dict[str, Any] = {"protocol": 2, **_timeouts(settings)}
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    if parts.scheme == "redis+socket":
        options.update(path=unquote(parts.path), db=_database(url, query.get("virtual_host", "0")))
        return Address(redact(url), UnixDomainSocketConnection, options)
    options.update(host=unquote(parts.hostname or "localhost"), port=_port(url), db=_database(url, parts.path))
    if parts.scheme == "rediss":
        options.update(_tls(query, settings))
        return Address(redact(url), SSLConnection, options)
    return Address(redact(url), Connection, options)


class RedisLink:
    """A connection that is opened on first use, and anew after an error or a fork. One thread at a time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Any = None
        self._pid = 0

    def connect(self) -> None:
        """Drop the connection that exists and open a new one."""
        self.close()
        self._guard(self._open)

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands in one write and return their replies; a refused command's reply is the exception.

        Every command must bear being sent twice: a connection that the server closed while it was idle is noticed
        only here, and the call is then repeated on a new one.
        """
        was_open = self._connection is not None and self._pid == os.getpid()
        try:
            return self._exchange(commands)
        except ResultStoreError as error:
            if not was_open or not isinstance(error.__cause__, _DROPPED):
                raise
        return self._exchange(commands)

    def send(self, *command: object) -> None:
        """Send a command whose reply is read by `read`."""
        self._guard(lambda: self._open().send_command(*command))

    def read(self, deadline: float) -> Any:
        """The next reply, or None when nothing came before `deadline` (monotonic)."""

        def receive() -> Any:
            connection = self._open()
            ready = connection.can_read(timeout=max(0.0, deadline - time.monotonic()))
            return connection.read_response() if ready else None

        return self._guard(receive)

    def close(self) -> None:
        """Drop the connection; one that a fork brought along is left to the process it belongs to. Never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()  # closes the descriptor; shuts the socket down only in the process that opened it

    def _open(self) -> Any:
        if self._pid != os.getpid():
            self.close()
        if self._connection is None:
            self._pid = os.getpid()
            connection = self._address.kind(**self._address.options)
            connection.connect()
            self._connection = connection
        return self._connection

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        def exchange() -> list[Any]:
            connection = self._open()
            connection.send_packed_command(connection.pack_commands(commands))
            return [_reply(connection) for _ in commands]

        replies: list[Any] = self._guard(exchange)
        return replies

    def _guard(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (redis.exceptions.RedisError, OSError) as error:
            self.close()
            raise ResultStoreError(f"the result store {self._address.shown} cannot be used: {error}") from error
        except BaseException:
            # Ctrl-C or a time limit's signal: half a reply may be left on the connection.
            self.close()
            raise


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disconnect_on_error=False)
    except redis.exceptions.ResponseError as refusal:
        return refusal


def _timeouts(settings: SettingsLike) -> dict[str, Any]:
    transport = settings.get("result_backend_transport_options") or {}
    timeout_s = transport.get("socket_timeout") or settings.get("redis_socket_timeout") or _LONGEST_S
    connect_s = transport.get("socket_connect_timeout") or settings.get("redis_socket_connect_timeout") or _CONNECT_S
    return {
        "socket_timeout": min(float(timeout_s), _LONGEST_S),
        "socket_connect_timeout": min(float(connect_s), _LONGEST_S),
    }


def _tls(query: Mapping[str, str], settings: SettingsLike) -> dict[str, Any]:
    configured = settings.get("redis_backend_use_ssl")
    options: dict[str, Any] = dict(configured) if isinstance(configured, Mapping) else {}
    options.update((name, query[name]) for name in _TLS_PARAMETERS if name in query)
    reqs = options.get("ssl_cert_reqs")
    if isinstance(reqs, str):
        options["ssl_cert_reqs"] = _CERT_REQS.get(reqs.upper(), reqs)
    if isinstance(options.get("ssl_check_hostname"), str):
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() in ("1", "true", "yes")
    elif options.get("ssl_cert_reqs") == "none":
        options.setdefault("ssl_check_hostname", False)
    return options


def _port(url: str) -> int:
    try:
        return urlsplit(url).port or 6379
    except ValueError as error:
        raise ConfigError(f"the result backend {redact(url)} has no usable port: {error}") from None


def _database(url: str, text: str) -> int:
    digits = text.strip("/") or "0"
    if not digits.isdigit():
        raise ConfigError(f"the result backend {redact(url)} names no database number: {digits!r}; end the URL with /0")
    return int(digits)
