"""The Redis adapter's connections: one for commands, one for wake-ups, and running scripts on the first.

Called by the verbs in redis.py. A session begins with each `connect` and has a token: it stands beside the owner's
lease, so that a late command of an earlier connection takes nothing, and begins the tags of what this connection takes.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import hiredis

from ..core import log_events, logs
from ..core.errors import ConfigError, TransportError
from .redis_health import refuse_unfit
from .redis_link import Command, Link
from .redis_refusals import Denied, is_wrong_server, refusal, wrote_nothing
from .redis_scripts import JOIN, LEAVE, Script
from .redis_sentinel import open_link
from .redis_url import Endpoint

logger = logging.getLogger("qworker.transports.redis")

_INVALIDATIONS: Final = "__redis__:invalidate"
#: Beside publishing: registers queues, watches them.
_WITHOUT_MESSAGES: Final = ("SADD", "CLIENT", "EXISTS")


class Session:
    """Connections that a producer opens on first use and anew after an error or a fork. One thread at a time.

    A worker opens them by `connect` alone: it has to know of every new connection, because what it waits on is then
    another descriptor, and what a lost reply took has to be recalled. With an owner there is also a wake-up connection,
    unless the server refuses to track keys: then `can_wake` turns False.
    """

    def __init__(self, endpoint: Endpoint, options: Mapping[str, Any], *, owner: str, lease_s: float) -> None:
        self.token = ""
        self.can_wake = bool(owner)
        self.lease_ms = max(1, round(lease_s * 1000))
        self._endpoint = endpoint
        self._owner = owner
        self._link: Link | None = None
        self._wake: Link | None = None
        self._wake_heard_at = 0.0
        self._wake_asked_at: float | None = None
        self._pid = 0
        self._was_connected = False
        prefix = options.get("global_keyprefix", "")
        # PUBLISH reaches every database of a server, so the channel's name holds the number.
        self._channel = f"{prefix}qworker:due:{endpoint.db}"
        unacked = prefix + options.get("unacked_key", "unacked")
        index = prefix + options.get("unacked_index_key", "unacked_index")
        self._common = (prefix, unacked, index, self._channel, owner)

    @property
    def shown(self) -> str:
        """Who is at the other end, or where to look for it; without secrets."""
        return self._link.shown if self._link is not None else self._endpoint.shown

    def connect(self) -> None:
        """Drop what is open and open it anew. Raises TransportError.

        ConfigError for a refusal that will stay: the first time. What was fine once can be so again (a password that is
        being changed, a server that is being moved), and running tasks need not end for it.
        """
        try:
            self._connect()
        except Denied as error:
            if self._was_connected:
                raise
            raise ConfigError(f"no message can be read or written: {error}") from error
        self._was_connected = True

    def drop(self) -> None:
        """Close the connections without a word. Never raises."""
        for link in (self._link, self._wake):
            if link is not None:
                link.close()
        self._link = self._wake = None

    def leave(self) -> None:
        """End the owner's lease if it holds nothing. Opens no connection for it. Raises TransportError."""
        if self._owner and self._link is not None and self._pid == os.getpid():
            self._link.call(("EVAL", LEAVE.source, 0, *self._common, self.token, self.lease_ms))

    def ready(self) -> None:
        """Make sure that there is a connection, and with it the token that the next command may carry.

        Raises TransportError.
        """
        self._usable_link()

    def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int | bytes]) -> Any:
        """Run one script and return its reply. Raises TransportError."""
        return self.run_with(script, keys, args)[0]

    def run_with(
        self, script: Script, keys: Sequence[str], args: Sequence[str | int | bytes], *more: Command
    ) -> list[Any]:
        """Run one script, and `more` commands behind it in the same write; return all replies."""
        command: Command = ("EVALSHA", script.sha, len(keys), *keys, *self._common, *args)
        replies = self._exchange((command, *more))
        if isinstance(replies[0], hiredis.ReplyError) and str(replies[0]).startswith("NOSCRIPT"):
            # By its source, so that it runs even if the server forgets it again between the two.
            command = ("EVAL", script.source, *command[2:])
            replies = self._exchange((("SCRIPT", "LOAD", script.source), command, *more))[1:]
        return self._checked((command, *more), replies)

    def call(self, *commands: Command) -> list[Any]:
        """Send commands in one write and return their replies. Raises TransportError, also for a refusal."""
        return self._checked(commands, self._exchange(commands))

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one write and return their replies, refusals among them. Raises TransportError."""
        return self._exchange(commands)

    def wake_fd(self) -> int | None:
        """The wake-up connection's descriptor, or None."""
        return self._wake.fileno() if self._wake is not None else None

    def drain_wake(self) -> None:
        """Forget what has arrived on the wake-up connection. Raises TransportError when it has broken."""
        if self._wake is not None and self._wake.skim():
            self._wake_heard_at = time.monotonic()
            self._wake_asked_at = None

    def check_wake(self) -> None:
        """Ask a silent wake-up connection whether it lives. Raises TransportError when it left such a question open."""
        wake, every_s = self._wake, self._endpoint.check_after_s
        now = time.monotonic()
        if wake is None or every_s <= 0 or now - self._wake_heard_at < every_s:
            return
        if self._wake_asked_at is None:
            wake.send(("PING",))
            self._wake_asked_at = now
        elif now - self._wake_asked_at > self._endpoint.timeout_s and not wake.has_arrived():
            self.drop()
            raise TransportError(f"{self.shown}: the connection that wakes this worker is dead")

    def _connect(self) -> None:
        self.drop()
        self._pid = os.getpid()
        # Tokens of later sessions sort behind those of earlier ones, so that recovered messages keep their order. They
        # end in the lease, so that each tag tells how often it should be renewed.
        self.token = f"{int(time.time() * 1000):011x}{secrets.token_hex(3)}.{self.lease_ms:x}"
        self._link = open_link(self._endpoint)
        try:
            if self._owner:
                refuse_unfit(self._link.call(("INFO", "server"))[0], self.shown)
                self.run(JOIN, (), (self.token, self.lease_ms))
                self._wake = self._open_wake(self._link)
        except BaseException:
            self.drop()
            raise

    def _open_wake(self, link: Link) -> Link | None:
        """Open the connection that wakes us. None when the server or the user's rights do not allow it."""
        if not self.can_wake:
            return None
        wake = Link(link.twin_endpoint())
        try:
            refused = self._subscribe(link, wake)
        except BaseException:
            wake.close()
            raise
        self._wake_heard_at, self._wake_asked_at = time.monotonic(), None
        if refused is None:
            return wake
        wake.close()
        self.can_wake = False
        logs.say(
            logger,
            logging.WARNING,
            log_events.BROKER_POLLED,
            "{broker} does not track keys ({why}): idle queues are polled twice a second",
            broker=self.shown,
            why=refused,
        )
        return None

    def _subscribe(self, link: Link, wake: Link) -> hiredis.ReplyError | None:
        """Have changes of what `link` looks at, and earlier due times, told to `wake`. Returns the first refusal."""
        replies = wake.call(("CLIENT", "ID"), ("SUBSCRIBE", _INVALIDATIONS), ("SUBSCRIBE", self._channel))
        if not _refusals(replies):
            replies = link.call(("CLIENT", "TRACKING", "ON", "REDIRECT", replies[0], "OPTIN"))
        return next(iter(_refusals(replies)), None)

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        return self._usable_link().call(*commands)

    def _usable_link(self) -> Link:
        link = self._link
        if link is None or self._pid != os.getpid() or not link.is_usable(time.monotonic()):
            if self._owner:
                raise TransportError(f"{self.shown}: the connection is closed")
            try:
                self.connect()
            except TransportError as error:
                error.nothing_sent = True
                raise
            link = self._link
            assert link is not None
        return link

    def _checked(self, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
        for reply in _refusals(replies):
            error = refusal(reply, self.shown)
            error.nothing_sent = not any(map(_may_have_written, commands, replies))
            if is_wrong_server(reply):
                self.drop()
            raise error
        return replies


def _may_have_written(command: Command, reply: Any) -> bool:
    """Whether this command can have put a message somewhere."""
    if command[0] in _WITHOUT_MESSAGES:
        return False
    if not isinstance(reply, hiredis.ReplyError):
        return True
    return command[0] == "EVALSHA" and not wrote_nothing(reply)


def _refusals(replies: list[Any]) -> list[hiredis.ReplyError]:
    return [reply for reply in replies if isinstance(reply, hiredis.ReplyError)]
