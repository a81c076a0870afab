"""TLS for tests: a redis-server that speaks it or, where none was built to, an endpoint in front of a plain one."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .listener import Listener
from .redis_server import RedisServer, free_port

FOLDER = Path(__file__).with_name("tls")
#: A redis-server's arguments for its own certificate.
CERTIFICATE = (
    *("--tls-cert-file", str(FOLDER / "server.pem"), "--tls-key-file", str(FOLDER / "server.key")),
    *("--tls-ca-cert-file", str(FOLDER / "ca.pem")),
)


@contextmanager
def tls_server(*, wants_client_certificate: bool = False) -> Iterator[int]:
    """A server of one's own for localhost; gives the port on which it speaks TLS."""
    if not has_tls():
        with (
            RedisServer() as server,
            TlsFront(server.port, wants_client_certificate=wants_client_certificate) as front,
        ):
            yield front.port
        return
    port = free_port()
    wanted = "yes" if wants_client_certificate else "no"
    with RedisServer("--tls-port", str(port), "--tls-auth-clients", wanted, *CERTIFICATE):
        yield port


@cache
def has_tls() -> bool:
    """Whether the newest redis-server was built with TLS."""
    try:
        with RedisServer("--tls-port", str(free_port()), *CERTIFICATE):
            return True
    except AssertionError:  # it ends at once, because it does not know the option
        return False


class TlsFront(Listener):
    """Accepts TLS connections for localhost and forwards them, one thread for each."""

    def __init__(self, port: int, *, wants_client_certificate: bool = False) -> None:
        super().__init__()
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(FOLDER / "server.pem", FOLDER / "server.key")
        if wants_client_certificate:
            self._context.load_verify_locations(FOLDER / "ca.pem")
            self._context.verify_mode = ssl.CERT_REQUIRED

    def welcome(self, client: socket.socket) -> None:
        threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            try:
                with self._context.wrap_socket(client, server_side=True) as secure:
                    _forward(secure, server)
            except OSError:  # also a refused handshake, which is what the test wants
                pass


def _forward(secure: ssl.SSLSocket, server: socket.socket) -> None:
    while True:
        readable = [secure] if secure.pending() else select.select([secure, server], [], [])[0]
        for source in readable:
            data = source.recv(65536)
            if not data:
                return
            (server if source is secure else secure).sendall(data)
