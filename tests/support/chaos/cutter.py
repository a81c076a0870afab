"""A TCP proxy that closes every connection after an exact number of bytes in one direction."""

from __future__ import annotations

import socket
import struct
import threading

from ..listener import Listener, connected_with

TO_SERVER, TO_CLIENT = "to server", "to client"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


class Cutter(Listener):
    """Forwards until it is armed and the bytes are spent, then goes on with new connections.

    Bytes of all connections count together, in the order in which they pass.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._target = port
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._direction: str | None = None
        self._left = 0
        self._resets = False

    @property
    def is_armed(self) -> bool:
        """Whether the cut is still to come."""
        return self._direction is not None

    @property
    def left(self) -> int:
        """How many bytes may still pass before the cut."""
        return self._left

    def arm(self, direction: str, after: int, *, resets: bool = False) -> None:
        """Let `after` more bytes pass in that direction, then close (or reset) all connections. 0: before the next."""
        with self._lock:
            self._direction, self._left, self._resets = direction, after, resets

    def disarm(self) -> None:
        with self._lock:
            self._direction = None

    def leave(self) -> None:
        with self._lock:
            self._cut()

    def welcome(self, client: socket.socket) -> None:
        server = connected_with(self._target, client)
        if server is None:
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._pairs.append((client, server))
        threading.Thread(target=self._pump, args=(client, server, TO_SERVER), daemon=True).start()
        threading.Thread(target=self._pump, args=(server, client, TO_CLIENT), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        try:
            while data := source.recv(65536):
                with self._lock:
                    self._pass_on(data, sink, direction)
        except OSError:
            pass
        for end in (source, sink):
            _hang_up(end)

    def _pass_on(self, data: bytes, sink: socket.socket, direction: str) -> None:
        if direction != self._direction or len(data) < self._left:
            self._left -= len(data) if direction == self._direction else 0
            sink.sendall(data)
            return
        sink.sendall(data[: self._left])
        self._direction = None
        self._cut()

    def _cut(self) -> None:
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                if self._resets:
                    try:
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    except OSError:
                        pass
                _hang_up(end)


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
