"""Asking a worker on this host: finds its socket, sends one GET, reads the answer. For `health` and `status`.

A health check runs every few seconds and has 100 ms: so this speaks its few lines of HTTP itself and imports only what
the interpreter has loaded anyway, and `socket`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final, NamedTuple

from .address import FOLDER, SUFFIX, Place, file_name, parse, places_to_look

#: How long a worker may take to answer.
TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 64 * 1024 * 1024


class AskError(Exception):
    """No answer, or no one to ask; the text says what to do."""


class Found(NamedTuple):
    """A worker's socket: the node's name as the file says it, and its path."""

    node: str
    path: str


def find_sockets(node: str | None = None, env: Mapping[str, str] = os.environ) -> list[Found]:
    """The sockets that somebody listens on, by name, in the first place that has any; with `node`, those called so.

    A folder `qworker` and those of services in it are one place.
    """
    places: dict[str, list[str]] = {}
    for folder in places_to_look(env):
        above = os.path.dirname(folder)
        places.setdefault(above if os.path.basename(above) == FOLDER else folder, []).append(folder)
    for folders in places.values():
        found = [one for folder in folders for one in _sockets_in(folder, node)]
        if found:
            return found
    return []


def _sockets_in(folder: str, node: str | None) -> list[Found]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    sockets = [Found(name.removesuffix(SUFFIX), os.path.join(folder, name)) for name in names if name.endswith(SUFFIX)]
    return [one for one in sockets if _is_called(one.node, node) and is_live(one.path)]


def _is_called(name: str, node: str | None) -> bool:
    if node is None:
        return True
    host = socket.gethostname()
    wanted = node.replace("%h", host).replace("%n", host.partition(".")[0]).replace("%d", host.partition(".")[2])
    wanted = file_name(wanted).removesuffix(SUFFIX)
    plain, _, number = name.rpartition("-")
    names = {name, plain} if number.isdigit() else {name}
    return wanted in names or wanted in {one.partition("@")[0] for one in names}


def _first_of_each_name(found: list[Found]) -> list[Found]:
    """Without those that have their process id behind a name that another one has."""
    names = {one.node for one in found}
    parts = [(one, one.node.rpartition("-")) for one in found]
    return [one for one, (plain, _, number) in parts if not (number.isdigit() and plain in names)]


def is_live(path: str) -> bool:
    """Whether somebody listens on this socket, or it cannot be told because we may not ask."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # we may not, or its queue is full: then it has one
            return True
    return True


def get(place: Place, path: str, *, token: str = "", timeout_s: float = TIMEOUT_S) -> tuple[int, bytes]:
    """GET `path`; returns status and body. Raises AskError."""
    request = f"GET {path} HTTP/1.0\r\nHost: localhost\r\n"
    if token.strip():
        request += f"Authorization: Bearer {token.strip()}\r\n"
    try:
        with _connected(place, timeout_s) as link:
            link.sendall(f"{request}\r\n".encode("ascii", "replace"))
            answer = _read_all(link)
    except TimeoutError:
        raise AskError(f"the worker at {place} does not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise AskError(f"the worker at {place} cannot be asked: {error.strerror or error}") from None
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
    except BaseException:
        link.close()
        raise
    return link


def _read_all(link: socket.socket) -> bytes:
    data = bytearray()
    while piece := link.recv(65536):
        data += piece
        if len(data) > _MOST_BYTES:
            break
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
    called = f" that is called {node}" if node else ""
    raise AskError(f"no worker{called} runs here, as far as {' and '.join(places_to_look())} show")
