"""Standard streams of a process in the background, and a log file that its user may write. Called by `setup`."""

from __future__ import annotations

import os
from contextlib import suppress

from ..core.errors import ConfigError
from ..core.log_sinks import open_for_lines
from .identity import Identity


def make_for(owner: Identity, path: str) -> None:
    """As root: make the log file and give it to its user. One that is there already is left as it is.

    Its name may be a mistake, and a gift of /etc/shadow could not be taken back; and what a link leads to is nobody's
    business. If the user may not write to it, opening it as that user says so.
    """
    if os.geteuid() != 0:
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return
    except OSError as error:
        raise ConfigError(f"the log file {path} cannot be opened: {error.strerror}") from error
    with suppress(OSError):  # a file system without owners
        os.fchown(fd, owner.uid, owner.gid)
    os.close(fd)


def let_go(*, keep: int | None) -> None:
    """Keep nothing of the caller's open: no terminal, no pipe that somebody waits for, no lock of a start script.

    Standard streams become /dev/null; every other descriptor but `keep` is closed.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null, number)
    for fd in _open_descriptors():
        if fd > 2 and fd != keep:
            with suppress(OSError):
                os.close(fd)


def write_to(logfile: str) -> None:
    """Standard output and error become the log file: a library's, or the interpreter's, last words are found there.

    As the user that the worker runs as: no descriptor that root has opened is left. Raises ConfigError.
    """
    try:
        fd = open_for_lines(logfile)
    except OSError as error:
        raise ConfigError(f"the log file {logfile} cannot be opened: {error.strerror}") from error
    for number in (1, 2):
        os.dup2(fd, number)
    os.close(fd)


def _open_descriptors() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc/self/fd")]
    return list(range(os.sysconf("SC_OPEN_MAX")))
