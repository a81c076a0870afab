"""One connection: reads one request of a few lines, checks who asks, answers, closes. In a thread of its own.

Bounded in every way that a client could choose: a request is short and complete within two seconds, an answer is taken
within five. Only GET and HEAD exist; nothing here changes anything.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from .address import Rules, is_loopback
from .pages import PROBES, Pages

_MOST_BYTES: Final = 8192
_READ_S: Final = 2.0
_WRITE_S: Final = 5.0
_TEXT: Final = "text/plain; charset=utf-8"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Request(NamedTuple):
    """What matters of a request."""

    method: str
    path: str
    headers: dict[str, str]


class Refused(Exception):
    """The request is answered with this status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def serve(link: socket.socket, pages: Pages, rules: Rules, on_asked: Callable[[], object] = lambda: None) -> None:
    """Answer one request; `on_asked` when it is complete. Raises OSError when the client has gone or is too slow."""
    head_only = False
    try:
        data = _read(link)
        on_asked()
        request = _parse(data)
        head_only = request.method == "HEAD"
        _check(request, rules)
        status, kind, body = pages.answer(request.path)
    except Refused as refused:
        status, kind, body = refused.status, _TEXT, f"{refused}\n".encode()
    link.settimeout(_WRITE_S)  # for all of it (socket.sendall)
    link.sendall(_head(status, kind, len(body)) + (b"" if head_only else body))
    link.shutdown(socket.SHUT_WR)


def _read(link: socket.socket) -> bytes:
    """Everything up to the empty line. Raises Refused."""
    data = bytearray()
    deadline = time.monotonic() + _READ_S
    while b"\r\n\r\n" not in data and b"\n\n" not in data:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise Refused(408, "the request is not complete after 2 s")
        if len(data) > _MOST_BYTES:
            raise Refused(431, f"the request has more than {_MOST_BYTES} bytes")
        link.settimeout(left_s)
        try:
            piece = link.recv(_MOST_BYTES)
        except TimeoutError:
            continue
        if not piece:
            raise Refused(400, "the request is not complete")
        data += piece
    return bytes(data)


def _parse(data: bytes) -> Request:
    lines = data.decode("latin-1").replace("\r\n", "\n").split("\n\n", 1)[0].split("\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Refused(400, "this is no request of HTTP/1")
    if words[0] not in ("GET", "HEAD"):
        raise Refused(405, "only GET and HEAD exist here")
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Request(words[0], words[1].partition("?")[0], headers)


def _check(request: Request, rules: Rules) -> None:
    """Raises Refused when this client may not have this page."""
    host = request.headers.get("host", "")
    if rules.hosts and host and not _is_ours(host, rules.hosts):
        raise Refused(403, "this address is not called so")
    if rules.token and request.path not in PROBES and not _has_token(request, rules.token):
        raise Refused(401, "show the token: Authorization: Bearer …")


def _is_ours(host: str, hosts: frozenset[str]) -> bool:
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() in hosts or (_is_address(name) and is_loopback(name))


def _is_address(name: str) -> bool:
    """Whether it is a number and no name: anybody can own one that begins like a number (127.0.0.1.example.org)."""
    return ":" in name or name.replace(".", "").isdigit()


def _has_token(request: Request, token: str) -> bool:
    import hmac  # loads OpenSSL; few endpoints have a token

    kind, _, shown = request.headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("latin-1"), token.encode())


def _head(status: int, kind: str, length: int) -> bytes:
    more = 'WWW-Authenticate: Bearer realm="qworker"\r\n' if status == 401 else ""
    more += "Allow: GET, HEAD\r\n" if status == 405 else ""
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{more}Connection: close\r\n\r\n"
    ).encode()
