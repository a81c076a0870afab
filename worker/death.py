"""How a child has ended, and what that means for the count of replaced children: plain data, no decisions.

Made by the master of what the spawner reports (`worker/master.py`, `worker/crew.py`); what becomes of the message that
the child was running is decided in `worker/outcomes.py`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from .dispatcher import Seat


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended: exit status (negative = killed by that signal, None = unknown) and peak memory."""

    status: int | None
    peak_kib: int | None = None
    #: Whether we ended it, or its spawner took it along: then its message is not to blame.
    is_ours: bool = False
    #: What led to it, if we know better than the exit status.
    why: str = ""
    #: The last stacks of the child, if it could still write them.
    stack: str = ""

    def cause(self) -> str:
        """For people: `signal 9 (SIGKILL)`, `exit code 1`."""
        if self.why:
            return self.why
        if self.status is None:
            return "an unknown cause"
        if self.status < 0:
            try:
                name = signal.Signals(-self.status).name
            except ValueError:
                name = "unknown signal"
            return f"signal {-self.status} ({name})"
        return f"exit code {self.status}"


#: Why there is no child: the system did not let it be made.
NOT_BORN: Final = "not_born"


def reason_to_replace(seat: Seat, death: Death, why: str) -> str:
    """Why a child has to be replaced; empty if it does not have to be (the pool shrinks)."""
    if seat.memory_cause:
        return "memory_limit"
    if seat.condemned_for:
        return "time_limit"
    if why == NOT_BORN:
        return ""
    if not seat.was_ready and not seat.is_retired:
        return "boot_failed"
    if death.status != 0 and why != "spawner_lost":
        return "crashed"
    return why
