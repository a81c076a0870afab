"""The result store's connections to Redis: opened on first use, reopened after an error or a fork. Used by `redis`.

Built on the transports' Link. What differs: a call may be repeated, because storing, fetching and deleting a result
bear it; errors are ResultStoreError; and a Listener waits for what is published.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import hiredis

from ..core.errors import ConfigError, ResultStoreError, TransportError
from ..transports import Command, Endpoint, Link, is_wrong_server, open_link, read_url, tls_options
from .base import SettingsLike

_T = TypeVar("_T")

# The worker's consumer thread, which also renews its leases, waits for these calls: Celery's default of 120 s would
# cost it everything it holds.
_LONGEST_S: Final = 4.0
_OPTIONS: Final = (
    "socket_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_keepalive_options",
    "health_check_interval",
    "client_name",
    "master_name",
    "min_other_sentinels",
    "sentinel_kwargs",
)
#: A connection that the server has closed breaks at the first word.
_AT_ONCE_S: Final = 0.5
_NOTHING: Final = object()


def endpoint_of(url: str, settings: SettingsLike) -> Endpoint:
    """Read the URL and the settings that go with it. Raises ConfigError with every mistake."""
    try:
        return read_url(url, _connection_options(settings))[0]
    except ConfigError as error:
        raise ConfigError(*(_about_results(problem) for problem in error.problems)) from None


class RedisLink:
    """A connection for calls. One thread at a time."""

    def __init__(self, endpoint: Endpoint, kind: type[Link] = Link) -> None:
        self._endpoint = endpoint
        self._kind = kind
        self._link: Any = None
        self._pid = 0

    def connect(self) -> None:
        """Drop the connection that exists and open a new one."""
        self.close()
        self.use(lambda link: None)

    def call(self, *commands: Command) -> list[Any]:
        """Send the commands in one write and return their replies; a refused command's reply is a `ReplyError`.

        When the server has closed the connection they are sent once more on a new one; but not after a wait, in which
        the caller may have lost its lease on what it wants to store.
        """
        was_open = self._link is not None and self._pid == os.getpid()
        began = time.monotonic()
        try:
            return self._checked_server(self.use(lambda link: link.call(*commands)))
        except ResultStoreError as error:
            if not was_open or not _is_dropped(error) or time.monotonic() - began > _AT_ONCE_S:
                raise
        return self._checked_server(self.use(lambda link: link.call(*commands)))

    def use(self, action: Callable[[Any], _T]) -> _T:
        """Do something with the connection; after an error it is gone."""
        try:
            return action(self._open())
        except TransportError as error:
            self.close()
            raise ResultStoreError(f"the result store {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection; safe in a forked child, for the parent keeps its own. Never raises."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _checked_server(self, replies: list[Any]) -> list[Any]:
        """Leave a server that says it is not the master, so that the next call looks for another."""
        if any(isinstance(reply, hiredis.ReplyError) and is_wrong_server(reply) for reply in replies):
            self.close()
        return replies

    def _open(self) -> Any:
        if self._pid != os.getpid():
            self.close()
        if self._link is not None and not self._link.is_usable(time.monotonic()):
            self.close()
        if self._link is None:
            self._pid = os.getpid()
            self._link = open_link(self._endpoint, self._kind)
        return self._link


class Listener(Link):
    """A connection that subscribes to channels, one at a time."""

    def is_usable(self, now: float) -> bool:
        """Whether the server has not closed it. No PING here: its answer would stand among the messages."""
        return not self._is_closed_by_peer()

    def subscribe(self, channel: bytes) -> None:
        """Return when the server has confirmed it: what is published from now on will be heard."""
        self.send(("SUBSCRIBE", channel))
        deadline = time.monotonic() + self._endpoint.timeout_s
        while (reply := self.receive(deadline)) is not None:
            if reply[0] == b"subscribe" and reply[1] == channel:
                return
        self.close()
        raise TransportError(f"{self._endpoint.shown} did not confirm a subscription")

    def unsubscribe(self, channel: bytes) -> None:
        """Hear no more of it; what is on its way is passed over by the next `subscribe`."""
        self.send(("UNSUBSCRIBE", channel))

    def receive(self, deadline: float) -> Any:
        """The next thing the server says, or None when nothing came before `deadline` (monotonic)."""
        return self._guarded(lambda: self._receive_until(deadline))

    def _receive_until(self, deadline: float) -> Any:
        while (reply := self._next()) is _NOTHING:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._receive_within(left_s):
                return None
        return reply

    def _receive_within(self, timeout_s: float) -> bool:
        self._socket.settimeout(timeout_s)
        try:
            self._receive()
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(self._endpoint.timeout_s)
        return True

    def _next(self) -> Any:
        reply = self._reader.gets()
        return _NOTHING if _is_nothing(reply) else reply


def _is_nothing(reply: Any) -> bool:
    """Whether the parser has no complete reply. A push always is a list."""
    return not isinstance(reply, list | Exception)


def _connection_options(settings: SettingsLike) -> dict[str, Any]:
    given = settings.get("result_backend_transport_options") or {}
    options: dict[str, Any] = {
        "socket_timeout": settings.get("redis_socket_timeout"),
        "socket_connect_timeout": settings.get("redis_socket_connect_timeout"),
        "socket_keepalive": settings.get("redis_socket_keepalive") or None,
    }
    options.update((name, given[name]) for name in _OPTIONS if given.get(name) is not None)
    options.update(tls_options(settings.get("redis_backend_use_ssl"), "redis_backend_use_ssl"))
    for name in ("socket_timeout", "socket_connect_timeout"):
        if isinstance(options[name], int | float):
            options[name] = min(options[name], _LONGEST_S)
    return options


def _about_results(problem: str) -> str:
    return problem.replace("the broker ", "the result backend ").replace(
        "broker_transport_options", "result_backend_transport_options"
    )


def _is_dropped(error: ResultStoreError) -> bool:
    """Whether the server closed the connection, as one that restarts or that finds a client idle does."""
    reason = error.__cause__.__cause__ if error.__cause__ else None
    return isinstance(reason, OSError) and not isinstance(reason, TimeoutError)
