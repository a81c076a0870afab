"""Asking a worker on this host: one GET to its socket, and its answer. For `health` and `status`.

A health check runs every few seconds and has 100 ms: so this speaks its few lines of HTTP itself and imports only what
the interpreter has loaded anyway, and `socket`.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Final

from .address import Place, parse, places_to_look
from .finding import Found, find_all_sockets, find_sockets

#: How long a worker may take until its answer is complete.
TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 64 * 1024 * 1024


class AskError(Exception):
    """No answer, or no one to ask; the text says what to do."""


def _first_of_each_name(found: list[Found]) -> list[Found]:
    """Without those that have their process id behind a name that another one has."""
    names = {one.node for one in found}
    parts = [(one, one.node.rpartition("-")) for one in found]
    return [one for one, (plain, _, number) in parts if not (number.isdigit() and plain in names)]


def get(place: Place, path: str, *, token: str = "", timeout_s: float = TIMEOUT_S) -> tuple[int, bytes]:
    """GET `path`; returns status and body. Raises AskError, also if a socket's file is not of who listens there."""
    request = f"GET {path} HTTP/1.0\r\nHost: localhost\r\n"
    if token.strip():
        request += f"Authorization: Bearer {token.strip()}\r\n"
    deadline = time.monotonic() + timeout_s
    try:
        with _connected(place, timeout_s) as link:
            link.sendall(f"{request}\r\n".encode("ascii", "replace"))
            answer = _read_all(link, deadline)
    except TimeoutError:
        raise AskError(f"the worker at {place} does not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise AskError(f"the worker at {place} cannot be asked: {error.strerror or error}") from None
    if not answer:
        raise AskError(f"the worker at {place} has ended, or so many ask it that it has no time for this")
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise AskError(f"what listens at {place} is no worker")
    return int(words[1]), body


def _connected(place: Place, timeout_s: float) -> socket.socket:
    if not place.path:
        # "any address" is where a worker listens, not where it is reached.
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(place.host, place.host)
        return socket.create_connection((host, place.port), timeout_s)
    link = socket.socket(socket.AF_UNIX)
    try:
        link.settimeout(timeout_s)
        link.connect(place.path)
        _check_owner(link, place)
    except BaseException:
        link.close()
        raise
    return link


def _check_owner(link: socket.socket, place: Place) -> None:
    """Raises AskError when another user listens than the one whom the file of the socket belongs to."""
    if not hasattr(socket, "SO_PEERCRED"):
        return
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # unix(7): pid, uid, gid
    uid, owner = int.from_bytes(credentials[4:8], sys.byteorder), os.stat(place.path).st_uid
    if uid != owner:
        raise AskError(f"{place} belongs to user {owner}, but user {uid} listens there: not asked")


def _read_all(link: socket.socket, deadline: float) -> bytes:
    """What comes until the end. Raises TimeoutError when that has not come by the deadline."""
    data = bytearray()
    while len(data) <= _MOST_BYTES:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        link.settimeout(left_s)
        piece = link.recv(65536)
        if not piece:
            break
        data += piece
    return bytes(data)


def ask(path: str, *, node: str | None, http: str | None, token: str = "") -> tuple[int, bytes]:
    """GET `path` of the one worker that is meant: of `node`, at `http`, or the only one here. Raises AskError.

    Of several with one name it is the first: who starts a second one in a container must not make the other look ill.
    A unix socket in `http` is where the worker listens instead of its own socket. On TCP no name is shown, so with a
    `node` the sockets are looked at first.
    """
    place = parse(http) if http else Place()
    if place.path or (place.host and node is None):
        return get(place, path, token=token)
    found = _first_of_each_name(find_sockets(node))
    if len(found) > 1:
        raise AskError(f"several workers run here: {', '.join(one.node for one in found)}; name one with -n")
    if found:
        return get(Place(path=found[0].path), path)
    if place.host:
        return get(place, path, token=token)
    raise AskError(nobody(node))


def nobody(node: str | None) -> str:
    """What to say where no worker was found that is believed."""
    called = f" that is called {node}" if node else ""
    text = f"no worker{called} runs here, as far as {' and '.join(places_to_look())} show"
    strange = "".join(f"; {one.path} is user {one.uid}'s" for one in find_all_sockets(node) if not one.is_believed)
    return f"{text}{strange}, who may call it what he likes: --http unix:PATH asks it" if strange else text
