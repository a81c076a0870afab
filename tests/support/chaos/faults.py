"""What a test has broken, and which runs that excuses: those that a fault can have cut, or the acks of which it can.

The scenarios write faults down before they happen; the judge (`judge.py`) asks them about every run.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .runs import Run

#: A task that ended this long before its worker was killed may run again: its ack had not left yet.
ACK_WINDOW_S: Final = 0.05
#: On a machine where processes wait for a processor that time does not count, but no ack takes longer than this.
LONGEST_ACK_S: Final = 1.0


class CalmClock:
    """Counts the time in which nobody waited for a processor. `pulse` are pulse.py's records, in order.

    After `ack_s` of it a run has been acked: 50 ms, and what the broker takes for one request.
    """

    def __init__(self, pulse: Sequence[tuple[float, float]] = (), ack_s: float = ACK_WINDOW_S) -> None:
        self._ack_s = ack_s
        self._moments = [at for at, _ in pulse]
        self._waited = [waited for _, waited in pulse]

    def was_acked(self, run: Run, moment: float) -> bool:
        """Whether `run` had ended so long before that its ack must have reached the broker."""
        if run.ended is None or moment <= run.ended:
            return False
        calm_s = moment - run.ended - self._waited_between(run.ended, moment)
        return calm_s > self._ack_s or moment > run.ended + LONGEST_ACK_S

    def _waited_between(self, since: float, until: float) -> float:
        """By the last record before and the first one behind: who writes them has to wait for a processor as well.

        What lies before the first record and behind the last one is calm.
        """
        if not self._moments:
            return 0.0
        first = max(0, bisect_right(self._moments, since) - 1)
        last = min(len(self._moments) - 1, bisect_left(self._moments, until))
        return max(0.0, self._waited[last] - self._waited[first])


@dataclass(frozen=True, slots=True)
class Kill:
    """A process of a worker was killed at this moment. `pid` None means the whole worker."""

    at: float
    worker: str
    pid: int | None = None

    def may_have_cut(self, run: Run, clock: CalmClock) -> bool:
        """Whether it hit `run`, or the worker while the ack of `run` had not left."""
        if run.worker != self.worker or self.pid not in (None, run.pid, run.ppid):
            return False
        return not clock.was_acked(run, self.at)


@dataclass(frozen=True, slots=True)
class Silence:
    """A worker was cut off or stood still for so long that its lease ended: what it ran may run elsewhere too.

    With `is_pause` its processes stood still from `since` on, in the middle of whatever they did.
    """

    since: float
    until: float
    worker: str
    lease_s: float
    is_pause: bool = False

    def may_have_cut(self, run: Run, clock: CalmClock) -> bool:
        """Whether `run` was under way, or not acked yet, when the lease may have ended.

        The lease was renewed at most a third of it before the silence began. What starts after its end had to ask.
        """
        if run.worker != self.worker or self.until - self.since < self.lease_s * 2 / 3:
            return False
        starts_in_time = run.started <= self.since + self.lease_s
        return starts_in_time and not clock.was_acked(run, self.since)


@dataclass(frozen=True, slots=True)
class Amnesia:
    """The broker lost what it was told in this time: acks are forgotten, and so are publishes."""

    since: float
    until: float

    def may_have_cut(self, run: Run, clock: CalmClock) -> bool:
        """Whether the ack of `run` can be among what was forgotten."""
        return run.started <= self.until and not clock.was_acked(run, self.since)


Fault = Kill | Silence | Amnesia


def worker_of(fault: Fault) -> str | None:
    return None if isinstance(fault, Amnesia) else fault.worker


def moment_of(fault: Fault) -> float:
    return fault.at if isinstance(fault, Kill) else fault.since
