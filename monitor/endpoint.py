"""The HTTP endpoint of a worker, as a companion in its master: listens, accepts, hands each connection to a thread.

The master's loop wakes up when somebody connects, and accepts here: so no answer comes from a master that hangs. What
follows may be slow and so is not the loop's business: a short-lived thread reads the request, looks at the worker and
answers (`request.py`). Its own socket is a convenience, and a worker runs without it; what `--http` asks for must be.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..core import log_events, logs
from ..core.companion import Watched
from ..core.errors import ConfigError
from ..core.secrets import learn
from .address import Place, Rules, is_loopback
from .sockets import OwnSocket, bind_unix, own_socket

if TYPE_CHECKING:
    from .pages import Pages

logger = logging.getLogger("qworker.monitor")

#: So many requests of one socket are served at a time; others wait in the socket's queue.
AT_ONCE: Final = 16
_QUEUE: Final = 64
#: Where all places are taken, who has not even asked after so long makes room: a slow client harms itself only.
PATIENCE_S: Final = 0.25
#: How long to wait for a free place, or for a descriptor when there are none.
_PAUSE_S: Final = 0.05


class Endpoint:
    """`place` None: the node's own socket alone; a unix socket replaces it, TCP is added; `off`: neither."""

    def __init__(self, node: str, place: Place | None, token: str) -> None:
        self._node = node
        self._place = place
        self._token = token
        learn({"token": token})
        self._own: OwnSocket | None = None
        self._listeners: list[Listener] = []

    def open(self, worker: Watched) -> None:
        """Listen. Raises ConfigError when `--http` cannot be done."""
        pages = _Later(worker)
        place = self._place or Place()
        if place.path:
            self._own = bind_unix(place.path)
        elif self._place is None or place.host:
            self._own = own_socket(self._node)
        if self._own is not None:
            self._listeners.append(Listener(self._own.socket, pages, Rules()))
        if place.host:
            self._listeners.append(self._tcp(place, pages))
        self._tell(place)

    def _tcp(self, place: Place, pages: _Later) -> Listener:
        """Listen on TCP. Raises ConfigError, also where others than this host would need no token."""
        try:
            family, kind, _, _, address = socket.getaddrinfo(
                place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            local = is_loopback(str(address[0]))
            if not local and not self._token:
                raise ConfigError(
                    f"--http {place.host}:{place.port}: everybody who reaches this address could ask; set "
                    "QWORKER_HTTP_TOKEN to a secret, or listen on 127.0.0.1"
                )
            listening = socket.socket(family, kind)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(address)
                listening.listen(_QUEUE)
            except BaseException:
                listening.close()
                raise
        except OSError as error:
            raise ConfigError(f"--http {place.host}:{place.port}: {error.strerror or error}") from None
        hosts = {"localhost", place.host.lower()} if local and not self._token else set()
        return Listener(listening, pages, Rules(self._token, frozenset(hosts)))

    def _tell(self, place: Place) -> None:
        where = [f"unix:{self._own.path}"] if self._own is not None else []
        if place.host:
            host, port = self._listeners[-1].address()
            where.append(str(Place(host=host, port=port)))
        if where:
            sentence = "health, metrics and status: {places}"
            logs.say(logger, logging.INFO, log_events.ENDPOINT_OPEN, sentence, places=" and ".join(where))

    def descriptors(self) -> Sequence[int]:
        """The sockets that can take another request."""
        now = time.monotonic()
        return [listener.fileno() for listener in self._listeners if listener.may_accept(now)]

    def next_at(self) -> float:
        """Soon, where all places are taken; else never."""
        now = time.monotonic()
        is_waiting = any(not listener.may_accept(now) for listener in self._listeners)
        return now + _PAUSE_S if is_waiting else math.inf

    def turn(self) -> None:
        """Accept whoever has connected."""
        for listener in self._listeners:
            listener.turn()

    def close(self) -> None:
        """Stop listening; the socket's file goes."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._own is not None:
            self._own.remove()


class _Later:
    """The pages of a worker, loaded when they are first asked for: most workers are never asked. Main thread."""

    def __init__(self, worker: Watched) -> None:
        self._worker = worker
        self._pages: Pages | None = None

    def get(self) -> Pages:
        """They are the same each time."""
        if self._pages is None:
            from .pages import Pages

            self._pages = Pages(self._worker)
        return self._pages


class Listener:
    """One listening socket and the connections that are being served. The main thread's, but for `_serve`."""

    def __init__(self, listening: socket.socket, pages: _Later, rules: Rules) -> None:
        self._listening = listening
        self._pages = pages
        self._rules = rules
        self._links: set[socket.socket] = set()  # each thread takes its own out
        self._asking: dict[socket.socket, float] = {}  # those whose request is not complete, and since when
        self._paused_until = 0.0
        listening.setblocking(False)

    def fileno(self) -> int:
        """For `select`."""
        return self._listening.fileno()

    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self._listening.getsockname()[:2]
        return str(host), int(port)

    def may_accept(self, now: float) -> bool:
        """Whether there is a free place."""
        return len(self._links) < AT_ONCE and now >= self._paused_until

    def turn(self) -> None:
        """Accept as many as there are places; hurry who takes long if there are none. Never raises."""
        now = time.monotonic()
        while self.may_accept(now):
            try:
                link, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors, no memory: it would come again at once
                logger.debug("a request cannot be accepted: %s", error)
                self._paused_until = now + 1.0
                return
            self._begin(link, now)
        for link, since in self._asking.copy().items() if len(self._links) >= AT_ONCE else ():
            if now - since >= PATIENCE_S:
                with suppress(OSError):  # it may just have ended by itself
                    link.shutdown(socket.SHUT_RDWR)

    def _begin(self, link: socket.socket, now: float) -> None:
        self._links.add(link)
        self._asking[link] = now
        try:
            threading.Thread(target=self._serve, args=(link, self._pages.get()), name="http", daemon=True).start()
        except RuntimeError:  # the system gives this process no more threads
            self._end(link)

    def _serve(self, link: socket.socket, pages: Pages) -> None:
        from .request import serve  # with the first request

        try:
            serve(link, pages, self._rules, lambda: self._asking.pop(link, None))
        # The outermost frame of a thread that must not matter: a request may come while the worker falls apart.
        except Exception as error:
            logger.debug("a request has not been answered: %r", error)
        finally:
            self._end(link)

    def _end(self, link: socket.socket) -> None:
        self._asking.pop(link, None)
        self._links.discard(link)
        with suppress(OSError):
            link.close()

    def close(self) -> None:
        """Stop listening, and cut who is still connected."""
        self._listening.close()
        for link in self._links.copy():
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
