"""Servers of a few lines: what accepts connections on a free port of this host."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import TypeVar

_Server = TypeVar("_Server", bound="Listener")


class Listener:
    """Hands every connection to `welcome`, in one thread. A context manager: the port is closed with the block."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """As that of a Redis."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self: _Server) -> _Server:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.leave()

    def welcome(self, client: socket.socket) -> None:
        """What becomes of a new connection."""
        raise NotImplementedError

    def leave(self) -> None:
        """The block has ended."""

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.welcome(client)


def connected_with(port: int, client: socket.socket) -> socket.socket | None:
    """The way on from a client to its server; without one, because the server is down, the client is hung up on."""
    try:
        return socket.create_connection(("127.0.0.1", port))
    except OSError:
        client.close()
        return None
