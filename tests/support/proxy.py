"""A TCP proxy that a test puts between a client and its server, to break the connection at a chosen moment."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .listener import Listener, connected_with
from .waiting import wait_until


class Proxy(Listener):
    """Forwards bytes both ways, one thread for each direction.

    All switches apply to every connection, present and future, until they are turned back: `swallows_replies`,
    `is_black_hole` (nothing passes, nothing is closed), `latency_s` (before each piece, both ways), `trickles` (replies
    arrive byte by byte, 20 ms apart).
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._target = port
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._said: dict[socket.socket, bytes] = {}
        self._deaf: bytes | None = None
        self._forgotten: set[socket.socket] = set()
        self._interruptions: list[tuple[bytes, Callable[[], object]]] = []
        self._lock = threading.Lock()
        self._rewritten: tuple[bytes, bytes] | None = None
        self._truncation: tuple[int, Callable[[socket.socket], None]] | None = None
        self.swallows_replies = False
        self.is_black_hole = False
        self.latency_s = 0.0
        self.trickles = False

    def interrupt_before(self, marker: bytes, action: Callable[[], object]) -> None:
        """Once: when a client sends `marker`, forward what stands before it, run `action`, then forward the rest."""
        with self._lock:
            self._interruptions.append((marker, action))

    @contextmanager
    def lost_replies(self, has_happened: Callable[[], object]) -> Iterator[None]:
        """In the block replies are swallowed, and every connection ends as soon as `has_happened` on the server."""

        def end() -> None:
            wait_until(has_happened, "the server has done what it was told")
            self.cut()

        self.swallows_replies = True
        watcher = threading.Thread(target=end)
        watcher.start()
        try:
            yield
        finally:
            watcher.join()
            self.swallows_replies = False

    def forget(self) -> None:
        """Let nothing more pass on the connections that exist, as a firewall does that knows nothing of them."""
        with self._lock:
            self._forgotten.update(end for pair in self._pairs for end in pair)

    def deafen(self, marker: bytes) -> None:
        """Deliver nothing more to clients that have sent `marker`, while their connections stay open."""
        self._deaf = marker

    def rewrite(self, pattern: bytes, replacement: bytes) -> None:
        """Have every reply say `replacement` where it says `pattern`; of the same length, or replies would break."""
        self._rewritten = (pattern, replacement)

    def truncate(self, after: int, *, resets: bool = False, holds: bool = False) -> None:
        """Once: deliver `after` bytes of the next reply, then close the connection, reset it, or say nothing more."""
        self._truncation = (after, _hold if holds else _reset if resets else _hang_up)

    def cut(self) -> None:
        """Close every connection."""
        self._end_all(_hang_up)

    def reset(self) -> None:
        """Have every client's connection reset, as a crashed host does when it is back."""
        self._end_all(_reset)

    def _end_all(self, end: Callable[[socket.socket], None]) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for client, server in pairs:
            end(client)
            _hang_up(server)

    def leave(self) -> None:
        self.cut()

    def welcome(self, client: socket.socket) -> None:
        server = connected_with(self._target, client)
        if server is None:
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
                if self.is_black_hole or source in self._forgotten or (not from_client and self._is_withheld(sink)):
                    continue
                time.sleep(self.latency_s)
                if from_client:
                    sink.sendall(self._interrupted(data, sink))
                elif not self._deliver(data, sink):
                    return
        except OSError:
            pass
        _hang_up(source)
        _hang_up(sink)

    def _deliver(self, data: bytes, client: socket.socket) -> bool:
        """Give a client its reply, or as much as it is to have; False when it gets nothing more."""
        if self._rewritten is not None:
            data = re.sub(*self._rewritten, data)
        with self._lock:
            truncation, self._truncation = self._truncation, None
        if truncation is not None:
            after, end = truncation
            client.sendall(data[:after])
            end(client)
            return False
        if self.trickles:
            for byte in data:
                client.sendall(bytes([byte]))
                time.sleep(0.02)
        else:
            client.sendall(data)
        return True

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


def _reset(end: socket.socket) -> None:
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it, which says nothing to the other side
    except OSError:
        pass
    end.close()


def _hold(end: socket.socket) -> None:
    """Leave it open."""
