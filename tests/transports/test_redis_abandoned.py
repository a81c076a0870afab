"""A connection that is given up after an error takes along what has not left yet: nothing arrives long after."""

from __future__ import annotations

import socket
import threading

import pytest

from qworker.core.errors import TransportError
from qworker.transports import Link, read_url

from support.impatience import impatient

SIZE = 1_000_000


def greet_and_fall_silent(listener: socket.socket, accepted: list[socket.socket]) -> None:
    """A server that hangs: it answers the greeting, then reads nothing."""
    client, _ = listener.accept()
    client.recv(1000)
    client.sendall(b"+PONG\r\n")
    accepted.append(client)


def test_what_a_hung_server_has_not_taken_is_never_delivered() -> None:
    accepted: list[socket.socket] = []
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=greet_and_fall_silent, args=(listener, accepted))
        thread.start()
        link = Link(read_url(f"redis://127.0.0.1:{listener.getsockname()[1]}", {})[0])
        thread.join()
    with accepted[0] as server:
        server.settimeout(10)
        with impatient(link, 0.3), pytest.raises(TransportError, match="did not answer"):
            link.call(("SET", "key", b"x" * SIZE))
        received, is_reset = read_all(server)
        assert is_reset
        assert received < SIZE


def read_all(server: socket.socket) -> tuple[int, bool]:
    """How many bytes there are, and whether the connection was reset behind them."""
    received = 0
    try:
        while piece := server.recv(65536):
            received += len(piece)
    except ConnectionResetError:
        return received, True
    return received, False
