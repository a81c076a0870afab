"""What a Redis server says no to, and what that means: the exceptions for refused commands. Called by all its adapters.

A refusal arrives as a `hiredis.ReplyError` among the replies; the connection is not harmed by it.
"""

from __future__ import annotations

from typing import Final

import hiredis

from ..core.errors import LeaseLost, TransportError

_CLUSTER: Final = "it is a node of a Redis Cluster, which is not supported; use a single server or Sentinel"
_ACL: Final = "the user in the URL may not do this; extend its ACL, docs/redis.md has a line for it"

# What a refusal means for the reader of the log, by its first word. These stay as they are, however often they are
# asked …
_FOR_GOOD: Final = {
    "NOAUTH": "it wants a password; write it into the URL",
    "WRONGPASS": "the user name or the password in the URL is wrong; correct it",
    "ERR AUTH": "it has no password; take it out of the URL",
    "ERR Client sent AUTH,": "it has no password; take it out of the URL",
    "ERR DB index": "it has no such database; correct the number in the URL",
    "ERR invalid DB index": "it has no such database; correct the number in the URL",
    "ERR SELECT is not allowed in cluster mode": _CLUSTER,
    "NOPERM": _ACL,
    "ACL failure in script:": _ACL,
    "The user executing the script": _ACL,
    "MOVED": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "CLUSTERDOWN": _CLUSTER,
    "a non local key": _CLUSTER,
}
# … and these pass.
_FOR_NOW: Final = {
    "LOADING": "it is still loading its data; it is asked again until it has",
    "READONLY": "it is a replica; a failover may be under way",
    "MASTERDOWN": "it is a replica without its master; a failover may be under way",
    "OOM": "its memory is full; raise maxmemory or drain the queues",
    "MISCONF": "it cannot save to disk and takes no writes; look at its log and at the disk",
    "BUSY": "it is busy with somebody's script; SCRIPT KILL ends that",
    "NOREPLICAS": "too few replicas are connected to it (min-replicas-to-write)",
    "WRONGTYPE": "somebody else uses a key of ours for something else; give one of the two another database or prefix",
    "ERR max number of clients": "it has no room for another connection; raise maxclients or stop somebody",
}
_HINTS: Final = {**_FOR_GOOD, **_FOR_NOW}
#: After these the server at the other end may be the wrong one: the connection is given up, so that the next one can
#: find another.
_WRONG_SERVER: Final = ("READONLY", "MASTERDOWN", "LOADING", "NOREPLICAS")
#: A script that is refused with one of these has not written anything: its first write decides.
_BEFORE_ANY_WRITE: Final = ("LOADING", "READONLY", "MASTERDOWN", "OOM", "MISCONF", "BUSY", "NOREPLICAS")


class Denied(TransportError):
    """The server refuses this login or what it wants to do; asking again does not help."""


def refusal(error: hiredis.ReplyError, shown: str) -> TransportError:
    """The exception for a refused command."""
    text = str(error)
    word = text.split(" ", 1)[0]
    if "FENCED" in text:
        return LeaseLost(f"{shown}: another connection speaks for this worker now")
    # An error inside a script carries the command's own error somewhere in its text.
    inner = next((known for known in _HINTS if f"{known} " in text), word)
    hint = _HINTS.get(inner)
    kind = Denied if inner in _FOR_GOOD else TransportError
    return kind(f"{shown} refused: {text}" + (f" ({hint})" if hint else ""))


def is_wrong_server(error: hiredis.ReplyError) -> bool:
    """Whether this refusal means that another server should be asked."""
    return any(f"{word} " in str(error) for word in _WRONG_SERVER)


def wrote_nothing(error: hiredis.ReplyError) -> bool:
    """Whether a script that was refused like this has certainly changed nothing."""
    return any(f"{word} " in str(error) for word in _BEFORE_ANY_WRITE)
