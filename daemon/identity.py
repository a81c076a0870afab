"""Whom the worker runs as: users and groups found by name or number, and root given up for good.

Called by `setup` before anything is opened (`find`) and after everything is (`become`).
"""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ..core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group, by number; `name` is the user's in the password file, if it is there."""

    uid: int
    gid: int
    name: str | None
    home: str | None

    @classmethod
    def find(cls, user: str | None, group: str | None) -> Identity | None:
        """Whom `--uid` and `--gid` mean (names or numbers); None when neither says anything.

        Raises ConfigError for a name that does not exist, and for one that this process may not become.
        """
        if user is None and group is None:
            return None
        uid = os.geteuid() if user is None else _user(user)
        entry = _entry(uid)
        if group is not None:
            gid = _group(group)
        elif entry is not None:
            gid = entry.pw_gid
        else:
            raise ConfigError(f"--uid {user} is in no password file, so its group is not known: give --gid as well")
        found = cls(uid, gid, entry.pw_name if entry else None, entry.pw_dir if entry else None)
        if os.geteuid() != 0 and not found.is_mine():
            raise ConfigError(
                f"--uid and --gid: only root can become {found}, and this process is user {os.geteuid()}; "
                "start it as root, or leave them away"
            )
        return found

    def is_mine(self) -> bool:
        """Whether this process is already, and only, this user and group."""
        return set(os.getresuid()) == {self.uid} and set(os.getresgid()) == {self.gid}

    def become(self) -> None:
        """Be this user from now on, with its groups only. There is no way back; raises ConfigError if there were.

        The order is given: as soon as the user is no longer root, groups cannot be changed. Every one of the three
        user ids is set (setresuid(2)), because a saved one that is root's would lead back.
        """
        if os.geteuid() != 0:
            return
        stay_readable = _dumpable()
        try:
            self._take_groups()
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise ConfigError(f"cannot become {self}: {error.strerror}") from error
        if self.uid == 0:
            return
        self._prove()
        stay_readable()
        self._check_reach()
        self.take_environment()

    def take_environment(self) -> None:
        """Let the variables name this user and its home: what points to root's own places only leads to refusals."""
        if self.uid == 0:
            return
        if self.name is not None and self.home is not None:
            os.environ.update(HOME=self.home, USER=self.name, LOGNAME=self.name)
        folder = os.environ.get("XDG_RUNTIME_DIR")
        if folder and not os.access(folder, os.W_OK):
            del os.environ["XDG_RUNTIME_DIR"]

    def __str__(self) -> str:
        return f"user {self.name or self.uid} (uid {self.uid}, gid {self.gid})"

    def _take_groups(self) -> None:
        if self.name is not None and self.uid != 0:
            os.initgroups(self.name, self.gid)
        else:
            os.setgroups([self.gid])

    def _prove(self) -> None:
        """Nothing of root is left: neither an id, nor a group, nor the ability to take them again."""
        left = [f"user ids {os.getresuid()}"] if set(os.getresuid()) != {self.uid} else []
        left += [f"group ids {os.getresgid()}"] if set(os.getresgid()) != {self.gid} else []
        strange = set(os.getgroups()) - self._groups()
        left += [f"groups {sorted(strange)}"] if strange else []
        left += ["it can become root again"] if _works(os.setresuid, 0, 0, 0) else []
        left += ["it can take root's group again"] if self.gid != 0 and _works(os.setresgid, 0, 0, 0) else []
        if left:
            raise ConfigError(f"root could not be given up for {self} ({'; '.join(left)}): the worker does not start")

    def _groups(self) -> set[int]:
        return {self.gid, *os.getgrouplist(self.name, self.gid)} if self.name is not None else {self.gid}

    def _check_reach(self) -> None:
        """A Python that lives in root's home is a usual mistake, and fails much later, in words that help nobody."""
        for path in (os.__file__, __file__):
            if not os.access(path, os.R_OK):
                raise ConfigError(
                    f"{self} may not read {path}: install Python and qworker where this user can read them"
                )


def _user(text: str) -> int:
    if text.isdigit():
        return _in_range("--uid", int(text))
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ConfigError(f"--uid {text}: there is no user of this name") from None


def _group(text: str) -> int:
    if text.isdigit():
        return _in_range("--gid", int(text))
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise ConfigError(f"--gid {text}: there is no group of this name") from None


def _in_range(option: str, number: int) -> int:
    if number >= 2**32 - 1:  # -1 would mean: leave it as it is (setresuid(2))
        raise ConfigError(f"{option} {number}: no user or group can have this number")
    return number


def _entry(uid: int) -> pwd.struct_passwd | None:
    with suppress(KeyError):
        return pwd.getpwuid(uid)
    return None


def _works(change: Callable[..., None], *ids: int) -> bool:
    try:
        change(*ids)
    except PermissionError:
        return False
    return True


def _dumpable() -> Callable[[], object]:
    """What lets this process be looked at again: one that has changed its user hides (prctl(2) PR_SET_DUMPABLE).

    Otherwise the master could not read how much memory its children use. An exec would have the same effect.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    import ctypes  # now, because it may lie where only root can read

    pr_set_dumpable = 4
    return partial(ctypes.CDLL(None, use_errno=True).prctl, pr_set_dumpable, 1, 0, 0, 0)
