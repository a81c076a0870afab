"""What kind of process a number belongs to. Called by `pidfile`."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import pairwise
from typing import Final

_TITLE: Final = "qworker: "
_MASTER: Final = "qworker: master"


def is_living_worker(pid: int) -> bool:
    """Whether `pid` is the master of a worker, also of one that is just starting.

    What cannot be seen (a process of another user, where /proc is mounted like that) is taken for one: two workers
    under one pid file are worse than a start that is refused.
    """
    if not _exists(pid):
        return False
    if not os.path.exists("/proc/self/cmdline"):
        return True  # no such file system on this machine: the number is taken, and that has to do
    try:
        words = _read(pid, "cmdline").split("\0")
        is_process = f"\nTgid:\t{pid}\n" in _read(pid, "status")  # threads have numbers, too
    except FileNotFoundError:
        return _exists(pid)
    except OSError:
        return True
    if words[0].startswith(_TITLE):
        return is_process and words[0].startswith(_MASTER)
    # The command that starts this very worker in the background looks like one.
    return is_process and _is_command(words) and pid not in _ancestors()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid != 0


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read().decode("utf-8", "replace")


def _is_command(words: list[str]) -> bool:
    """`qworker …`, `/usr/bin/python3 /usr/bin/qworker …`, `python -X dev -m qworker …`."""
    is_script = "qworker" in [os.path.basename(word) for word in words[:2]]
    return is_script or any(pair == ("-m", "qworker") for pair in pairwise(words[:8]))


def _ancestors() -> set[int]:
    found: set[int] = set()
    pid = os.getppid()
    while pid > 1 and pid not in found:
        found.add(pid)
        pid = _parent(pid)
    return found


def _parent(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(_read(pid, "stat").rpartition(")")[2].split()[1])
    return 0
