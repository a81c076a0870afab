"""Dying together with the parent process, and seeing that others are dead."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOOK_EVERY_S: Final = 0.005


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when the thread that forked it ends (Linux: prctl(2) PR_SET_PDEATHSIG).

    Exits at once when the parent is already gone. On other systems end-of-file on the sockets to the parent has to do.
    A change of user or group clears the wish (same page): ask again afterwards.
    """
    _set_parent_death_signal(int(signal.SIGKILL))
    if os.getppid() != parent_pid:
        os._exit(0)


def outlive_parent() -> None:
    """Take `die_with_parent` back: this process sees its parent's end by itself and has something to do then."""
    _set_parent_death_signal(0)


def _set_parent_death_signal(number: int) -> None:
    if sys.platform.startswith("linux"):
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, number, 0, 0, 0)


def end_for_certain(parents: Sequence[int], children: Sequence[int], limit_s: float) -> bool:
    """SIGKILL for `parents`, and for `children` of theirs with their process groups; whether all are dead in time.

    `parents` are children of this process; they are stopped first, so that none of them forks on or reaps, and no
    number changes its owner meanwhile. A process that only waits to be reaped is dead. Takes no lock.
    """
    for pid in parents:
        _kill(pid, signal.SIGSTOP)
    for pid in children:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    for pid in (*children, *parents):
        _kill(pid, signal.SIGKILL)
    left = {*parents, *children}
    deadline = time.monotonic() + limit_s
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if not _is_dead(pid)}
        if left:
            time.sleep(_LOOK_EVERY_S)
    return not left


def is_zombie(pid: int) -> bool:
    """Whether this process has ended and only waits to be reaped. False where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:  # gone, or a system without this file
        return False


def kill_group(pid: int) -> None:
    """SIGKILL for a process and its group, which it may not have made yet; 0 is nobody."""
    for kill in (os.killpg, os.kill) if pid else ():
        with suppress(ProcessLookupError):  # it was faster
            kill(pid, signal.SIGKILL)


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone, or somebody else by now: then it is seen to live
        os.kill(pid, number)


def _is_dead(pid: int) -> bool:
    with suppress(ChildProcessError):  # not ours to reap
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
    if is_zombie(pid):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
