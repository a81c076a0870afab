"""A signal to the whole process group never ends a task: children and spawner look away."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Final

GROUP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def ignore_group_signals() -> None:
    """Make TERM, INT, HUP and QUIT do nothing in this process, and leave the parent's process group.

    USR1 and USR2 as well, until somebody gives them a meaning: sent to all processes of the name they must end none.

    A handler that does nothing, not SIG_IGN: exec resets handlers to the default, so a program
    that a task starts can still be terminated; SIG_IGN would be inherited by it (signal(7)).
    """
    signal.set_wakeup_fd(-1)
    for number in (*GROUP_SIGNALS, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _nothing)
        signal.siginterrupt(number, False)
    os.setpgid(0, 0)


def spare_forks() -> None:
    """Let what this process forks from now on obey those signals again; call it once.

    A task's `multiprocessing.Process` would be deaf to `terminate()` otherwise, and its `Pool` wait for ever. One that
    comes at once waits until the copy can obey it.
    """
    masks = threading.local()

    def hold() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def obey() -> None:
        for number in GROUP_SIGNALS:
            if signal.getsignal(number) is _nothing:
                signal.signal(number, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=obey)


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Deliberately nothing."""
