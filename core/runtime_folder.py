"""`/run/qworker`, under which sockets of workers are: root's alone, so that nobody else can put anything there.

Folders in it belong to the users of services: systemd makes them (`RuntimeDirectory=`), and a worker that gives root up
makes its own. Called by `daemon` and `monitor`; loads next to nothing, because a health check comes along.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final

SERVICES: Final = "/run/qworker"


def place_of(uid: int) -> str:
    """The folder of a user whose workers root has started."""
    return f"{SERVICES}/{uid}"


def make_services_folder() -> bool:
    """As root: make it, and let others pass to their own folders in it; False where it cannot be, or is another's."""
    try:
        with suppress(FileExistsError):
            os.mkdir(SERVICES, 0o755)
        found = os.lstat(SERVICES)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return False
        if not found.st_mode & stat.S_IXOTH:  # a umask may have taken it
            os.chmod(SERVICES, 0o755)
    except OSError:
        return False
    return os.access(SERVICES, os.W_OK | os.X_OK)


def make_place_of(uid: int, gid: int) -> None:
    """As root: make the folder of this user. Never raises; where there is none, workers find another place."""
    if uid == 0 or os.geteuid() != 0 or not make_services_folder():
        return
    with suppress(OSError):
        os.mkdir(place_of(uid), 0o700)
        os.chown(place_of(uid), uid, gid)
