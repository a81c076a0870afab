"""From what the command line wishes to a process that is settled on its machine, and back again at its end.

Called by `wish.py` around the worker's whole life. The order matters:

1. whom to become is looked up, and what will be refused is refused, while the caller still looks;
2. the working directory, then the umask: every relative path is meant from there;
3. into the background;
4. as root: a folder for sockets, the pid file and the log file are made and given to the user, because he could not
   make them in /run or /var/log; in their folders he cannot remove or replace them either, and need not;
5. standard streams are let go, root is given up, and then the log is opened as that user.

A worker that replaces its own program (exec, the same process id) finds all of this done and repeats nothing: `mark`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.runtime_folder import make_place_of
from .caller import Caller
from .detach import check_detaching, detach
from .identity import Identity
from .mark import place
from .pidfile import Pidfile
from .streams import let_go, make_for, write_to
from .wish import Wish, change_directory


@contextmanager
def settled(wish: Wish) -> Iterator[Caller | None]:
    """What `wish.settled` does when it is not about the working directory alone."""
    pidfile = Pidfile(os.path.join(wish.workdir or "", wish.pidfile)) if wish.pidfile else None
    caller = _resume(place.fd, wish) if place.is_settled else _settle(wish, pidfile)
    try:
        yield caller
    finally:
        if pidfile is not None:
            pidfile.release()


def _settle(wish: Wish, pidfile: Pidfile | None) -> Caller | None:
    identity = Identity.find(wish.uid, wish.gid)
    if wish.detach:
        check_detaching()
    change_directory(wish.workdir)
    if wish.umask is not None:
        os.umask(wish.umask)
    if pidfile is not None:
        pidfile.check()  # while the caller still looks; it may be another's by the time that it is ours
    caller = detach() if wish.detach else None
    if pidfile is not None:
        pidfile.acquire(identity)
    try:
        if identity is not None:
            make_place_of(identity.uid, identity.gid)
        if wish.logfile and identity is not None:
            make_for(identity, wish.logfile)
        if caller is not None:
            _listen(caller, wish)
            let_go(keep=caller.fd)
        if identity is not None:
            identity.become()
        if caller is not None and wish.logfile:
            write_to(wish.logfile)
    except BaseException:
        if pidfile is not None:
            pidfile.release()
        raise
    return caller


def _resume(fd: int, wish: Wish) -> Caller | None:
    """After an exec in place, which came with the environment that the first image was started with."""
    change_directory(wish.workdir)
    identity = Identity.find(wish.uid, wish.gid)
    if identity is not None:
        identity.take_environment()
    if fd < 0:
        return None
    os.set_inheritable(fd, False)
    caller = Caller(fd)
    _listen(caller, wish)
    return caller


def _listen(caller: Caller, wish: Wish) -> None:
    place.caller = caller
    caller.is_quiet = wish.is_quiet
    caller.listen()
