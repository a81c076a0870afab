"""A TCP proxy that a test puts between a client and its server, to break the connection at a chosen moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType


class Proxy:
    """Forwards bytes both ways, one thread for each direction. A context manager.

    All switches apply to every connection, present and future, until they are turned back.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._said: dict[socket.socket, bytes] = {}
        self._deaf: bytes | None = None
        self._interruptions: list[tuple[bytes, Callable[[], object]]] = []
        self._lock = threading.Lock()
        self.swallows_replies = False
        self.is_black_hole = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def interrupt_before(self, marker: bytes, action: Callable[[], object]) -> None:
        """Once: when a client sends `marker`, forward what stands before it, run `action`, then forward the rest."""
        with self._lock:
            self._interruptions.append((marker, action))

    def deafen(self, marker: bytes) -> None:
        """Deliver nothing more to clients that have sent `marker`, while their connections stay open."""
        self._deaf = marker

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _hang_up(end)

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _hang_up(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._lock:
                self._pairs.append((client, server))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        try:
            while data := source.recv(65536):
                if from_client:
                    self._said[source] = self._said.get(source, b"") + data
                if self.is_black_hole or (not from_client and self._is_withheld(sink)):
                    continue
                if from_client:
                    data = self._interrupted(data, sink)
                sink.sendall(data)
        except OSError:
            pass
        _hang_up(source)
        _hang_up(sink)

    def _is_withheld(self, client: socket.socket) -> bool:
        return self.swallows_replies or (self._deaf is not None and self._deaf in self._said.get(client, b""))

    def _interrupted(self, data: bytes, sink: socket.socket) -> bytes:
        with self._lock:
            found = next((pair for pair in self._interruptions if pair[0] in data), None)
            if found is None:
                return data
            self._interruptions.remove(found)
        marker, action = found
        at = data.index(marker)
        sink.sendall(data[:at])
        action()
        return data[at:]


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
