"""As process 1 of a container the master inherits every orphan, and must reap them or their entries pile up.

Called by the master's main thread when SIGCHLD arrives, and only if its pid is 1.
"""

from __future__ import annotations

import os
from collections.abc import Container


def reap_strangers(own: Container[int]) -> int:
    """Reap ended processes that are not among `own` (those have somebody who waits for them); returns how many."""
    reaped = 0
    while True:
        try:
            # Look first, reap by pid: taking just any would steal the exit status of one of our own.
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return reaped
        if ended is None or ended.si_pid in own:
            return reaped
        os.waitpid(ended.si_pid, 0)
        reaped += 1
