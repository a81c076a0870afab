"""Unix sockets in the file system: for their owner alone, taken over from the dead, removed at the end.

Called by the endpoint in the master's main thread before there are other threads, because the file's mode comes from
the process's umask.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ..core import log_events, logs
from ..core.errors import ConfigError
from .address import LONGEST_PATH, SUFFIX, file_name, folders, make_folder
from .finding import is_live

logger = logging.getLogger("qworker.monitor")

_QUEUE: Final = 64
#: Whoever makes a socket in a folder holds its lock for less than a millisecond.
_LOCK_S: Final = 1.0


class OwnSocket:
    """A listening socket and its file."""

    def __init__(self, listening: socket.socket, path: str) -> None:
        self.socket = listening
        self.path = path
        self._identity = _identity(path)
        self._pid = os.getpid()

    def remove(self) -> None:
        """Remove the file, if it is still ours. Never raises."""
        if os.getpid() == self._pid and self._identity is not None and _identity(self.path) == self._identity:
            with suppress(OSError):
                os.unlink(self.path)


def own_socket(node: str) -> OwnSocket | None:
    """The node's own socket; None, and a warning, where there is no place for it."""
    for folder in folders():
        if not make_folder(folder):
            continue
        for mark in ("", f"-{os.getpid()}"):
            path = os.path.join(folder, file_name(node, mark))
            if len(os.fsencode(path)) > LONGEST_PATH:
                break
            try:
                with _locked(folder):
                    _sweep(folder, node)
                    return OwnSocket(_listen(path), path)
            except FileExistsError:
                sentence = "another worker here is called {node}: -n gives this one a name of its own"
                logs.say(logger, logging.WARNING, log_events.NODE_NAME_TAKEN, sentence, node=node)
            except OSError as error:
                logger.debug("no socket at %s: %s", path, error.strerror or error)
                break
    logs.say(
        logger,
        logging.WARNING,
        log_events.NO_SOCKET,
        "there is no place for this worker's socket ({folders}): `qworker status` and `health` cannot ask it; "
        "--http names a place",
        folders=", ".join(folders()),
    )
    return None


def _sweep(folder: str, node: str) -> None:
    """Remove what killed workers of this name have left behind: nobody else would ever use their process ids again."""
    head = f"{file_name(node).removesuffix(SUFFIX)}-"
    for name in os.listdir(folder):
        number = name.removeprefix(head).removesuffix(SUFFIX)
        if name == f"{head}{number}{SUFFIX}" and number.isdigit():
            path = os.path.join(folder, name)
            if not is_live(path):
                with suppress(FileNotFoundError):
                    os.unlink(path)


def bind_unix(path: str) -> OwnSocket:
    """Listen at this very path. Raises ConfigError."""
    try:
        with _locked(os.path.dirname(path)):
            return OwnSocket(_listen(path), path)
    except FileExistsError as error:
        raise ConfigError(f"--http unix:{path}: {error.strerror}") from None
    except OSError as error:
        raise ConfigError(f"--http unix:{path}: {error.strerror or error}") from None


def _listen(path: str) -> socket.socket:
    """A socket of mode 0600 at `path`; a dead one there is replaced. Raises FileExistsError, OSError."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(0, "there is a file of this name that is no socket")
        if is_live(path):
            raise FileExistsError(0, "another worker listens there")
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listening.bind(path)
        listening.listen(_QUEUE)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Keep other workers from looking at and replacing sockets of `folder` meanwhile, as far as locks work there."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + _LOCK_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:
                break
        yield
    finally:
        os.close(fd)


def _identity(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.lstat(path)
        return found.st_dev, found.st_ino
    return None
