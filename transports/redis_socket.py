"""Opening a socket to a Redis server: plain, unix or TLS, within one time-out, and saying why it did not work.

Called by redis_link.py.
"""

from __future__ import annotations

import socket
import time

from ..core.errors import TransportError
from .redis_tls import advice, secured
from .redis_url import Endpoint


def open_socket(endpoint: Endpoint) -> socket.socket:
    """Connect, TLS handshake included, within the endpoint's time-out for connecting. Raises OSError, Denied."""
    deadline = time.monotonic() + endpoint.connect_timeout_s
    plain = _unix_socket(endpoint) if endpoint.path else _tcp_socket(endpoint, deadline)
    try:
        plain.settimeout(_left(deadline))
        connected = plain if endpoint.tls is None else secured(plain, endpoint.host, endpoint.tls)
    except BaseException:
        plain.close()
        raise
    connected.settimeout(endpoint.timeout_s)
    return connected


def unreachable(error: Exception, endpoint: Endpoint, timeout_s: float) -> TransportError:
    """The exception for a connection that failed: what happened, and what to do about it where that is known."""
    if isinstance(error, TimeoutError):
        return TransportError(f"{endpoint.shown} did not answer within {timeout_s:g} s{advice(error)}")
    return TransportError(f"{endpoint.shown} cannot be reached: {_plain(error)}{advice(error)}")


def _unix_socket(endpoint: Endpoint) -> socket.socket:
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    plain.settimeout(endpoint.connect_timeout_s)
    return _connected(plain, endpoint.path)


def _tcp_socket(endpoint: Endpoint, deadline: float) -> socket.socket:
    """Try the addresses of the host in turn; one that does not answer leaves the others their share of the time."""
    host, port = endpoint.address or (endpoint.host, endpoint.port)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, address) in zip(range(len(found), 0, -1), found, strict=True):
        plain = socket.socket(family, kind, protocol)
        plain.settimeout(_left(deadline) / left)
        try:
            return _tuned(_connected(plain, address), endpoint)
        except OSError:
            if left == 1:
                raise
    raise OSError(f"no address for {host}")


def _connected(plain: socket.socket, address: object) -> socket.socket:
    try:
        plain.connect(address)  # type: ignore[arg-type]  # a path, or what getaddrinfo has said
    except BaseException:
        plain.close()
        raise
    return plain


def _tuned(plain: socket.socket, endpoint: Endpoint) -> socket.socket:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, endpoint.keepalive)
    for option, value in endpoint.keepalive_options.items():
        plain.setsockopt(socket.IPPROTO_TCP, option, value)
    return plain


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _plain(error: Exception) -> str:
    """The reason in words, without the errno that people do not read."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    file = getattr(error, "filename", None)  # of a socket
    return f"{reason}: {file}" if file else reason
