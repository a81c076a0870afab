"""Connections to the server that a URL means: directly, or to the master that sentinels name.

Called by whoever opens a connection: the session and the result store. Sentinels are asked for every connection
anew, so that nothing that is remembered can be out of date; what they say is checked by asking the server for its role.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, TypeVar

import hiredis

from ..core.errors import TransportError
from .redis_link import Command, Link
from .redis_refusals import Denied, refusal
from .redis_url import Endpoint

_LinkT = TypeVar("_LinkT", bound=Link)

_UNKNOWN: Final = "knows no master of this name"
# The URL holds the master's login.
_LOGIN: Final = "; a sentinel's own username and password belong into sentinel_kwargs"


def open_link(endpoint: Endpoint, kind: type[_LinkT] = Link) -> _LinkT:  # type: ignore[assignment]
    """Connect, by way of the sentinels if there are any.

    Raises TransportError with what each sentinel said; Denied when all of them answer and none tells us the master, or
    when the master refuses us.
    """
    if not endpoint.sentinels:
        return kind(endpoint)
    said: list[str] = []
    tried: set[tuple[str, int]] = set()
    for sentinel in endpoint.sentinels:
        try:
            address = _ask(sentinel, endpoint)
        except TransportError as error:  # one that refuses us must not hide the others
            said.append(f"{error}{_LOGIN if isinstance(error, Denied) else ''}")
            continue
        if address in tried:
            said.append(f"{sentinel.shown} says the same")
            continue
        tried.add(address)
        try:
            return _master_at(address, sentinel, endpoint, kind)
        except Denied:
            raise
        except TransportError as error:
            said.append(str(error))
    text = f"no master {endpoint.master_name!r} was found: {'; '.join(said)}"
    if all(_UNKNOWN in problem for problem in said):
        raise Denied(f"{text}; correct master_name")
    if all(_UNKNOWN in problem or _LOGIN in problem for problem in said):
        raise Denied(text)
    raise TransportError(text)


def _ask(sentinel: Endpoint, endpoint: Endpoint) -> tuple[str, int]:
    """Where this sentinel believes the master to be. Raises TransportError when it cannot be asked or does not know."""
    name = endpoint.master_name
    questions: list[Command] = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)]
    if endpoint.min_other_sentinels:
        questions.append(("SENTINEL", "MASTER", name))
    link = Link(sentinel)
    try:
        replies = link.call(*questions)
    finally:
        link.close()
    if replies[0] is None:
        raise TransportError(f"{sentinel.shown} {_UNKNOWN}")
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise refusal(reply, sentinel.shown)
    if endpoint.min_other_sentinels:
        others = _others(replies[1])
        if others < endpoint.min_other_sentinels:
            wanted = endpoint.min_other_sentinels
            raise TransportError(f"{sentinel.shown} sees {others} other sentinels, min_other_sentinels wants {wanted}")
    host, port = replies[0]
    return host.decode(), int(port)


def _others(master: list[bytes]) -> int:
    fields = dict(zip(master[::2], master[1::2], strict=False))
    return int(fields.get(b"num-other-sentinels", 0))


def _master_at(address: tuple[str, int], sentinel: Endpoint, endpoint: Endpoint, kind: type[_LinkT]) -> _LinkT:
    host, port = address
    shown = f"the master {endpoint.master_name!r} at {host}:{port}"
    link = kind(replace(endpoint, shown=shown, host=host, port=port, sentinels=()))
    try:
        role: Any = link.call(("ROLE",))[0]
    except BaseException:
        link.close()
        raise
    # Who may not ask for the role finds out by the first write.
    if isinstance(role, hiredis.ReplyError) or role[0] == b"master":
        return link
    link.close()
    raise TransportError(
        f"{sentinel.shown} names {host}:{port}, which is a {_word(role[0])}; a failover may be under way"
    )


def _word(role: bytes) -> str:
    return "replica" if role == b"slave" else role.decode("ascii", "replace")
