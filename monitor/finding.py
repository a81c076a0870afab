"""Finding the sockets of workers on this host, and whose they are. For `health`, `status`, and who makes a socket.

In a temporary directory that all share, anybody can put a socket of any name. So each one is *believed* only if it is
this user's or root's, or in a folder that root (or this user) has let somebody have: those of services are under /run.
Root is shown the others as well, with their owners' names, but takes none of them for the worker that is meant.
Imports only what the interpreter has loaded anyway, and `socket`: a health check has 100 ms.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .address import FOLDER, SUFFIX, file_name, places_to_look


class Found(NamedTuple):
    """A worker's socket: the node's name as the file says it, its path, whose it is, whether that is believed."""

    node: str
    path: str
    uid: int
    is_believed: bool


def find_sockets(node: str | None = None, env: Mapping[str, str] = os.environ) -> list[Found]:
    """The believed sockets that somebody listens on, in the first place that has any; with `node`, those called so."""
    for folders in _places(env):
        found = _own([one for folder in folders for one in _sockets_in(folder, node) if one.is_believed])
        if found:
            return found
    return []


def find_all_sockets(node: str | None = None, env: Mapping[str, str] = os.environ) -> list[Found]:
    """Those of all places, the best place first. Root is also given those that are not believed."""
    found = [one for folders in _places(env) for folder in folders for one in _sockets_in(folder, node)]
    return _own([one for one in found if one.is_believed or not os.geteuid()])


def _places(env: Mapping[str, str]) -> list[list[str]]:
    """Folders, in the order in which to look. A folder `qworker` and those of services in it are one place."""
    places: dict[str, list[str]] = {}
    for folder in places_to_look(env):
        above = os.path.dirname(folder)
        places.setdefault(above if os.path.basename(above) == FOLDER else folder, []).append(folder)
    return list(places.values())


def _own(found: list[Found]) -> list[Found]:
    """Who is not root may not ask workers of others: these count only where there are no others."""
    return [one for one in found if os.geteuid() in (0, one.uid)] or found


def _sockets_in(folder: str, node: str | None) -> Iterator[Found]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    is_guarded = _is_guarded(folder)
    for name in names:
        called, path = name.removesuffix(SUFFIX), os.path.join(folder, name)
        if name.endswith(SUFFIX) and _is_called(called, node) and is_live(path):
            uid = _owner(path)
            if uid is not None:
                yield Found(called, path, uid, is_guarded)


def _is_guarded(folder: str) -> bool:
    """Whether nobody but this user, root, and whom they have let have this folder, can have put anything there."""
    mine = (0, os.geteuid())
    try:
        found, above = os.lstat(folder), os.stat(os.path.dirname(folder))
    except OSError:
        return False
    if found.st_uid in mine and not found.st_mode & 0o022:
        return True
    return above.st_uid in mine and not above.st_mode & 0o022


def _owner(path: str) -> int | None:
    try:
        found = os.lstat(path)
    except OSError:  # gone meanwhile
        return None
    return found.st_uid if stat.S_ISSOCK(found.st_mode) else None


def _is_called(name: str, node: str | None) -> bool:
    if node is None:
        return True
    host = socket.gethostname()
    wanted = node.replace("%h", host).replace("%n", host.partition(".")[0]).replace("%d", host.partition(".")[2])
    wanted = file_name(wanted).removesuffix(SUFFIX)
    plain, _, number = name.rpartition("-")
    names = {name, plain} if number.isdigit() else {name}
    return wanted in names or wanted in {one.partition("@")[0] for one in names}


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
