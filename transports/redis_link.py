"""One connection to Redis: a socket, hiredis as the parser, and a time-out on everything.

Used by the Redis adapter for its command connection and its wake-up connection. redis-py is not used: importing it
takes 0.1 s and loads asyncio into every process, and all that is needed of it is a handshake of four commands.
Commands are packed by hiredis and written in one piece; a reply of 256 envelopes of 1 KiB is parsed at 0.1 µs each.

Any error closes the connection, because half a reply may be left on it; the caller opens a new one.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import hiredis

from ..core.errors import TransportError
from .redis_refusals import refusal
from .redis_url import Endpoint

if TYPE_CHECKING:
    import ssl

Command = Sequence[str | int | float | bytes]
_T = TypeVar("_T")

# hiredis declares it for tuples of one element only.
_pack: Final = cast(Callable[[tuple[Any, ...]], bytes], hiredis.pack_command)

_NOTHING: Final = object()
_READ_SIZE: Final = 1 << 18
#: A reply may take as long as it likes while this much of it arrives within each time-out.
_PROGRESS: Final = 1 << 16
#: The slowest broker connection that still counts as working, for large messages on their way out.
_SLOWEST_BYTES_PER_S: Final = 1 << 20


class Link:
    """One open connection. One thread at a time, and only in the process that opened it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._reader: Any = hiredis.Reader(notEnoughData=_NOTHING)
        self._buffer = bytearray(_READ_SIZE)
        self._used_at = time.monotonic()
        self._socket = _connect(endpoint)
        self._handshake()

    def fileno(self) -> int:
        """The socket's descriptor, for `select`; -1 when closed."""
        return self._socket.fileno()

    def call(self, *commands: Command) -> list[Any]:
        """Send the commands in one piece and return their replies in order; a refusal is an exception among them.

        Raises TransportError when the server does not answer.
        """
        payload = b"".join([_pack(tuple(command)) for command in commands])
        return self._guarded(lambda: self._exchange(payload, len(commands)))

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

        Asks the kernel after a second of silence and the server after `health_check_interval`. Nothing is lost by a no.
        """
        idle_s = now - self._used_at
        if self._socket.fileno() < 0:
            return False
        if idle_s < 1.0:
            return True
        if self._is_closed_by_peer():
            return False
        if not 0 < self._endpoint.check_after_s < idle_s:
            return True
        try:
            return not isinstance(self.call(("PING",))[0], hiredis.ReplyError)
        except TransportError:
            return False

    def close(self) -> None:
        """Close the descriptor. Says nothing to the server: a forked child may call it. Never raises."""
        try:
            self._socket.close()
        except OSError:
            pass

    def _handshake(self) -> None:
        commands = list(_greetings(self._endpoint))
        for command, reply in zip(commands, self.call(*commands), strict=True):
            # A name is for people who look at CLIENT LIST; not being allowed to set it is no reason to fail.
            if isinstance(reply, hiredis.ReplyError) and command[0] != "CLIENT":
                self.close()
                raise refusal(reply, self._endpoint.shown)

    def _exchange(self, payload: bytes, wanted: int) -> list[Any]:
        self._used_at = time.monotonic()
        if len(payload) > _READ_SIZE:
            self._socket.settimeout(self._endpoint.timeout_s + len(payload) / _SLOWEST_BYTES_PER_S)
            self._socket.sendall(payload)
            self._socket.settimeout(self._endpoint.timeout_s)
        else:
            self._socket.sendall(payload)
        return [self._reply() for _ in range(wanted)]

    def _reply(self) -> Any:
        reply = self._reader.gets()
        if reply is _NOTHING:
            deadline, fresh = time.monotonic() + self._endpoint.timeout_s, 0
            while reply is _NOTHING:
                size = self._receive()
                fresh += size
                if fresh >= _PROGRESS:
                    deadline, fresh = time.monotonic() + self._endpoint.timeout_s, 0
                elif time.monotonic() > deadline:
                    raise TimeoutError
                reply = self._reader.gets()
        return reply

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
        poll = select.poll()  # unlike select.select it takes descriptors above 1023
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

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
            self.close()
            raise _unreachable(error, self._endpoint.shown, self._endpoint.timeout_s) from error
        except BaseException:
            # Ctrl-C or a time limit's signal in the middle: the reply that is still to come must not be taken for the
            # next one.
            self.close()
            raise


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


def _connect(endpoint: Endpoint) -> socket.socket:
    try:
        return _open_socket(endpoint)
    except OSError as error:
        raise _unreachable(error, endpoint.shown, endpoint.connect_timeout_s) from error


def _open_socket(endpoint: Endpoint) -> socket.socket:
    if endpoint.path:
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.settimeout(endpoint.connect_timeout_s)
        plain.connect(endpoint.path)
    else:
        plain = socket.create_connection((endpoint.host, endpoint.port), timeout=endpoint.connect_timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, endpoint.keepalive)
    connected = plain if endpoint.tls is None else _secure(plain, endpoint.host, endpoint.tls)
    connected.settimeout(endpoint.timeout_s)
    return connected


def _secure(plain: socket.socket, host: str, tls: Any) -> ssl.SSLSocket:
    import ssl

    context = ssl.create_default_context(cafile=tls.get("ssl_ca_certs"))
    wanted = tls.get("ssl_cert_reqs", "required")
    context.check_hostname = tls.get("ssl_check_hostname", wanted == "required") and wanted != "none"
    context.verify_mode = ssl.VerifyMode[f"CERT_{wanted.upper()}"]
    if tls.get("ssl_certfile"):
        context.load_cert_chain(tls["ssl_certfile"], tls.get("ssl_keyfile"))
    return context.wrap_socket(plain, server_hostname=host)


def _would_block(error: OSError) -> bool:
    # ssl is imported only where TLS is used, so its exception is known by name.
    return isinstance(error, BlockingIOError) or type(error).__name__ == "SSLWantReadError"


def _unreachable(error: Exception, shown: str, timeout_s: float) -> TransportError:
    if isinstance(error, TimeoutError):
        return TransportError(f"{shown} did not answer within {timeout_s:g} s")
    return TransportError(f"{shown} cannot be reached: {_plain(error)}")


def _plain(error: Exception) -> str:
    """The reason in words, without the errno that people do not read."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    file = getattr(error, "filename", None)  # of a socket, or of a certificate
    return f"{reason}: {file}" if file else reason
