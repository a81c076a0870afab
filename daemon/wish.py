"""What the command line says about the process, and having it so for a while. Called by the command line.

Most workers ask for nothing of all this: what it takes (`setup.py`) loads only for those that do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import ConfigError
from .mark import place

if TYPE_CHECKING:
    from .caller import Caller


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line says about the process. `logfile` is the master's own, every `%` filled in."""

    workdir: str | None = None
    umask: int | None = None
    detach: bool = False
    pidfile: str | None = None
    logfile: str | None = None
    uid: str | None = None
    gid: str | None = None
    is_quiet: bool = False

    @property
    def is_special(self) -> bool:
        """Whether anything but the working directory is asked for."""
        return self.detach or self.umask is not None or any((self.pidfile, self.uid, self.gid))


@contextmanager
def settled(wish: Wish) -> Iterator[Caller | None]:
    """Make this process what `wish` says while the block runs; gives who waits for it to be ready, if somebody does.

    With `detach` only the process in the background enters the block. Raises ConfigError.
    """
    place.read()
    if wish.is_special:
        from .setup import settled as settle

        with settle(wish) as caller:
            yield caller
        return
    change_directory(wish.workdir)
    yield None


def change_directory(workdir: str | None) -> None:
    """Go there, if it is given. Raises ConfigError."""
    if not workdir:
        return
    try:
        os.chdir(workdir)
    except OSError as error:
        raise ConfigError(f"--workdir {workdir}: {error.strerror}") from None
