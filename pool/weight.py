"""What a process weighs: memory of its own, in KiB. Called by a child when it is ready, if there is a memory limit.

Only the child itself can tell what it brings along: as soon as it has said that it is ready it may be given a task.
"""

from __future__ import annotations

from typing import Final

_SMAPS: Final = "/proc/self/smaps_rollup"  # proc(5); one read of some 0.5 ms


def own_weight_kib() -> int | None:
    """Memory that this process shares with no other; None where the system does not tell."""
    try:
        with open(_SMAPS, encoding="ascii") as file:
            private = [line.split() for line in file if line.startswith("Private_")]
    except OSError:
        return None
    return sum(int(kib) for _, kib, _ in private)
