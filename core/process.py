"""Dying together with the parent process."""

from __future__ import annotations

import os
import signal
import sys


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
