"""Time-outs that are cut short in the middle of a test: what comes before a fault may take as long as it likes.

A machine that is busy with something else is no fault. Used by the tests of Redis connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any


@contextmanager
def impatient(connection: Any, seconds: float) -> Iterator[None]:
    """In the block this Redis transport, result store or Link, open before, waits so long for an answer at most."""
    openers, links = _parts(connection)
    patience: float = (openers or links)[0]._endpoint.timeout_s
    _set(openers, links, seconds)
    try:
        yield
    finally:
        _set(*_parts(connection), patience)


def _parts(connection: Any) -> tuple[list[Any], list[Any]]:
    """What opens its connections, and those that are open."""
    if hasattr(connection, "_session"):
        session = connection._session
        openers, links = [session], [session._link, session._wake]
    elif hasattr(connection, "_listener"):
        openers = [connection._link, connection._listener]
        links = [opener._link for opener in openers]
    else:
        openers, links = [], [connection]
    return openers, [link for link in links if link is not None]


def _set(openers: list[Any], links: list[Any], seconds: float) -> None:
    for holder in (*openers, *links):
        holder._endpoint = replace(holder._endpoint, timeout_s=seconds, connect_timeout_s=seconds)
    for link in links:
        if link.fileno() >= 0:
            link._socket.settimeout(seconds)
