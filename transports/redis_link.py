"""One connection to Redis: a socket, hiredis as the parser, and a time-out on everything.

Used by the Redis adapter for its command connection and its wake-up connection. redis-py is not used: importing it
takes 0.1 s and loads asyncio into every process, and all that is needed of it is a handshake of four commands.
Commands are packed by hiredis and written in one piece; a reply of 256 envelopes of 1 KiB is parsed at 0.1 µs each.

Any error closes the connection, because half a reply may be left on it; the caller opens a new one.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

import hiredis

from ..core.errors import TransportError
from .redis_refusals import refusal
from .redis_socket import open_socket, unreachable
from .redis_url import Endpoint

Command = Sequence[str | int | float | bytes]
_T = TypeVar("_T")

# hiredis declares it for tuples of one element only.
_pack: Final = cast(Callable[[tuple[Any, ...]], bytes], hiredis.pack_command)

_NOTHING: Final = object()
_NOTHING_LEFT_BEHIND: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s
_READ_SIZE: Final = 1 << 18
#: Larger ones take noticeable time to send.
_LARGE: Final = 1 << 18
#: The slowest broker connection that still counts as working, for large messages on their way out and in.
_SLOWEST_BYTES_PER_S: Final = 1 << 20


class Link:
    """One open connection. One thread at a time, and only in the process that opened it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._reader: Any = hiredis.Reader(notEnoughData=_NOTHING)
        self._buffer = bytearray(_READ_SIZE)
        self._used_at = time.monotonic()
        self._has_written = False
        self._socket = self._connect()
        self._poll = select.poll()  # unlike select.select it takes descriptors above 1023
        self._poll.register(self._socket, select.POLLIN)
        self._handshake()

    @property
    def shown(self) -> str:
        """Who is at the other end, without secrets."""
        return self._endpoint.shown

    def fileno(self) -> int:
        """The socket's descriptor, for `select`; -1 when closed."""
        return self._socket.fileno()

    def call(self, *commands: Command) -> list[Any]:
        """Send the commands in one piece and return their replies in order; a refusal is an exception among them.

        Takes as long as the time-out at most, and a second more for each MiB. Raises TransportError when the server
        does not answer; its `nothing_sent` tells whether any of the commands can have reached it.
        """
        payload = b"".join([_pack(tuple(command)) for command in commands])
        self._has_written = False
        try:
            return self._guarded(lambda: self._exchange(payload, len(commands)))
        except TransportError as error:
            error.nothing_sent = not self._has_written
            raise

    def send(self, command: Command) -> None:
        """Send a command whose reply `receive` or `skim` will meet."""
        self._guarded(lambda: self._socket.sendall(_pack(tuple(command))))

    def receive(self, deadline: float) -> Any:
        """The next thing the server says, or None when nothing came before `deadline` (monotonic)."""
        return self._guarded(lambda: self._receive_until(deadline))

    def skim(self) -> bool:
        """Read and forget everything that has arrived, without waiting; whether that was anything."""
        return self._guarded(self._skim)

    def has_arrived(self) -> bool:
        """Whether something waits to be skimmed."""
        return self._is_readable(0.0)

    def is_usable(self, now: float) -> bool:
        """Whether a command may be sent: the server may have closed a connection that was idle, and a firewall
        forgotten it.

        Asks the kernel, and after `health_check_interval` the server. Nothing is lost by a no.
        """
        if self._socket.fileno() < 0 or self._is_closed_by_peer():
            return False
        if not 0 < self._endpoint.check_after_s < now - self._used_at:
            return True
        try:
            return not isinstance(self.call(("PING",))[0], hiredis.ReplyError)
        except TransportError:
            return False

    def twin_endpoint(self) -> Endpoint:
        """For another connection to the very same server, however names and roles have changed meanwhile."""
        if self._endpoint.path:
            return self._endpoint
        host, port = self._guarded(self._socket.getpeername)[:2]
        return replace(self._endpoint, address=(host, port))

    def close(self) -> None:
        """Close the descriptor. Says nothing to the server: a forked child may call it. Never raises."""
        try:
            self._socket.close()
        except OSError:
            pass

    def _connect(self) -> socket.socket:
        try:
            return open_socket(self._endpoint)
        except OSError as error:
            raise unreachable(error, self._endpoint, self._endpoint.connect_timeout_s) from error

    def _handshake(self) -> None:
        commands = list(_greetings(self._endpoint))
        try:
            replies = self.call(*commands)
        except TransportError as error:
            hint = self._hint(error.__cause__)
            if hint:
                raise TransportError(f"{error} ({hint})") from error.__cause__
            raise
        for command, reply in zip(commands, replies, strict=True):
            # A name is for people who look at CLIENT LIST; not being allowed to set it is no reason to fail.
            if isinstance(reply, hiredis.ReplyError) and command[0] != "CLIENT":
                self.close()
                raise refusal(reply, self._endpoint.shown)

    def _hint(self, reason: BaseException | None) -> str:
        """What may be meant by a connection that ends in the middle of the first words."""
        if not isinstance(reason, ConnectionError):
            return ""
        tls = self._endpoint.tls
        if tls is None:
            return "if it speaks TLS only, write rediss://"
        return "it may want a client certificate; see ssl_certfile" if not tls.get("ssl_certfile") else ""

    def _exchange(self, payload: bytes, wanted: int) -> list[Any]:
        self._used_at = time.monotonic()
        deadline = self._used_at + self._endpoint.timeout_s
        if len(payload) > _LARGE:
            deadline += len(payload) / _SLOWEST_BYTES_PER_S
            self._socket.settimeout(deadline - self._used_at)
        self._send(payload)
        return self._replies(wanted, deadline, is_late=len(payload) > _LARGE)

    def _send(self, payload: bytes) -> None:
        """Send all of it, and note when the first byte may have left."""
        if self._endpoint.tls is not None:
            self._has_written = True  # what an attempt that failed has written is not known
            self._socket.sendall(payload)
            return
        sent = self._socket.send(payload)
        self._has_written = True
        if sent < len(payload):
            self._socket.sendall(memoryview(payload)[sent:])

    def _replies(self, wanted: int, deadline: float, *, is_late: bool) -> list[Any]:
        """Read `wanted` replies. `is_late`: time has passed since the deadline was set.

        The socket's own time-out begins anew with each piece that arrives, so that it is cut to what is left. Not
        before the first piece, which nearly always is the only one: setting it is a system call.
        """
        replies: list[Any] = []
        is_cut = is_late
        while len(replies) < wanted:
            reply = self._reader.gets()
            if reply is not _NOTHING:
                replies.append(reply)
                continue
            if is_late:
                is_cut = True
                self._socket.settimeout(_left(deadline))
            size = self._receive()
            deadline += size / _SLOWEST_BYTES_PER_S
            is_late = True
        if is_cut:
            self._socket.settimeout(self._endpoint.timeout_s)
        return replies

    def _receive_until(self, deadline: float) -> Any:
        # What the parser already holds comes first: the socket knows nothing of it.
        while (reply := self._reader.gets()) is _NOTHING:
            if not self._is_readable(max(0.0, deadline - time.monotonic())):
                return None
            self._receive()
        return reply

    def _is_readable(self, timeout_s: float) -> bool:
        pending = getattr(self._socket, "pending", None)  # TLS: decrypted, but not read yet
        if pending is not None and pending():
            return True
        return bool(self._poll.poll(timeout_s * 1000))

    def _receive(self) -> int:
        size = self._socket.recv_into(self._buffer)
        if size == 0:
            raise ConnectionResetError("it closed the connection")
        self._reader.feed(self._buffer, 0, size)
        return size

    def _skim(self) -> bool:
        found = False
        self._socket.settimeout(0)
        try:
            while self._socket.recv_into(self._buffer) > 0:
                found = True
        except OSError as error:
            if not _would_block(error):
                raise
            self._socket.settimeout(self._endpoint.timeout_s)
            return found
        raise ConnectionResetError("it closed the connection")

    def _is_closed_by_peer(self) -> bool:
        """A look at the socket that takes nothing from it. TLS sockets cannot peek: they are asked by PING."""
        if not self._poll.poll(0):  # nearly always, and one system call instead of three
            return False
        self._socket.settimeout(0)  # MSG_DONTWAIT is not enough: Python itself waits first, for the socket's time-out
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ValueError:
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(self._endpoint.timeout_s)

    def _guarded(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except (OSError, hiredis.ProtocolError) as error:
            self._abandon()
            raise unreachable(error, self._endpoint, self._endpoint.timeout_s) from error
        except BaseException:
            # Ctrl-C or a time limit's signal in the middle: the reply that is still to come must not be taken for the
            # next one.
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Close, and take back what has not left this host yet.

        The kernel would deliver it when the network is whole again, however late: a result, for example, that meanwhile
        is somebody else's to store.
        """
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOTHING_LEFT_BEHIND)
        except OSError:
            pass
        self.close()


def _greetings(endpoint: Endpoint) -> list[Command]:
    commands: list[Command] = []
    if endpoint.password or endpoint.username:
        user = (endpoint.username,) if endpoint.username else ()
        commands.append(("AUTH", *user, endpoint.password))
    if endpoint.db:
        commands.append(("SELECT", endpoint.db))
    if endpoint.client_name:
        commands.append(("CLIENT", "SETNAME", endpoint.client_name))
    # Shows that somebody answers; a server that wants a password refuses it.
    return [*commands, ("PING",)]


def _left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _would_block(error: OSError) -> bool:
    # ssl is imported only where TLS is used, so its exception is known by name.
    return isinstance(error, BlockingIOError) or type(error).__name__ == "SSLWantReadError"
