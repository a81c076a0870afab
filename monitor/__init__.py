"""Health, metrics and status of a worker over HTTP: the endpoint that its master serves, and who asks it.

The rest loads when it is called for: a health check must not wait for what only a worker needs, nor a worker for what
only a request needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .address import Place, parse, parse_optional
from .client import AskError, ask, get, nobody
from .finding import Found, find_all_sockets, find_sockets, is_live

if TYPE_CHECKING:
    from ..core.companion import Companion

__all__ = [
    "AskError",
    "Found",
    "Place",
    "ask",
    "endpoint",
    "find_all_sockets",
    "find_sockets",
    "get",
    "is_live",
    "nobody",
    "parse",
    "parse_optional",
]


def endpoint(node: str, http: str | None, token: str | None) -> Companion:
    """The companion that serves `http` (HOST:PORT, unix:PATH, off, or None) and the node's own socket.

    White space around the token does not count: no header can hold it, and the file that it was read from ends with it.
    Raises ConfigError for an address that is none, or that everybody could reach without a token.
    """
    from .endpoint import Endpoint

    return Endpoint(node, parse_optional(http), (token or "").strip())
