"""The pid file: at most one living worker stands in it, and it is removed only by the worker whose number it holds.

Called by `setup`. A file is *stale* when its process is gone, or is no worker (numbers are used again, in containers
within minutes). Workers that start at the same moment take turns by a lock on the folder.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ..core.errors import ConfigError
from .identity import Identity
from .processes import is_living_worker

#: A worker that starts holds the lock for some milliseconds.
LOCK_S: Final = 5.0
#: What is longer cannot be a pid file that somebody has spoilt: it is something else, named by mistake.
_MOST_BYTES: Final = 64


class Pidfile:
    """One worker's entry in the file at `path`."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def check(self) -> None:
        """Raises ConfigError when a living worker stands in it, or when it is no pid file."""
        pid = self._read()
        if pid is not None and pid != os.getpid() and is_living_worker(pid):
            raise ConfigError(
                f"the pid file {self.path} belongs to a worker that runs, pid {pid}: "
                "stop that one first, or give this one another --pidfile"
            )

    def acquire(self, owner: Identity | None = None) -> None:
        """Write this process's number, in one step: readers see the old content or the new. Raises ConfigError.

        With `owner` the file belongs to that user, who can then empty it even where it may not remove it.
        """
        try:
            with _alone_in(os.path.dirname(self.path)):
                self.check()
                self._replace(owner)
        except OSError as error:
            raise ConfigError(f"the pid file {self.path} cannot be written: {error.strerror}") from error

    def release(self) -> None:
        """Remove it if it is still ours; in a folder where this user may not, empty it. Never raises."""
        with suppress(OSError, ConfigError):
            if self._read() != os.getpid():
                return
            try:
                os.unlink(self.path)
            except PermissionError:
                os.truncate(self.path, 0)

    def _read(self) -> int | None:
        """The number in it; None when there is no file, or an empty or spoilt one (a host that lost its power)."""
        try:
            with open(self.path, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"the pid file {self.path} cannot be read: {error.strerror}") from error
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{self.path} holds no process id: it is no pid file, and is left alone")
        text = data.strip(b"\0 \t\r\n")
        return int(text) if text.isdigit() else None

    def _replace(self, owner: Identity | None) -> None:
        fresh = f"{self.path}.{os.getpid()}"
        with suppress(FileNotFoundError):
            os.unlink(fresh)  # a process of this number has died here before
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, f"{os.getpid()}\n".encode())
            os.fchmod(fd, 0o644)  # whoever asks for the state of the service reads it, whatever the umask
            if owner is not None and os.geteuid() == 0:
                os.fchown(fd, owner.uid, owner.gid)
            os.rename(fresh, self.path)
        except OSError:
            os.unlink(fresh)
            raise
        finally:
            os.close(fd)


@contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Hold the lock of `folder`. Some network file systems have none for folders: then two starts may both succeed.

    So they may when somebody does not let it go: anybody who can read the folder can hold it, and must not be able to
    keep all workers from starting.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            _lock(fd, time.monotonic() + LOCK_S)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return
            time.sleep(0.01)
