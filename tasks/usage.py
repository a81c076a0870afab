"""What each run costs: processor time, memory, and how long its message has waited. Used by a child, for every message.

Asking the kernel takes 2 µs, a twentieth of what a task that does nothing costs in all. So it is asked once in a
millisecond at most: a run that has taken less since the last reading is taken to have used the processor all its time
and no memory of note; what it did use beyond that counts for the next run that is measured. A run of a millisecond and
more is measured by itself, threads and ended subprocesses included.
"""

from __future__ import annotations

import time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, Final, NamedTuple

from ..core.clock import wall_time
from ..transports import DATED, VERSION_AT, published_at

if TYPE_CHECKING:
    from .message import Message
    from .outcome import Outcome

#: Between two readings, at least.
_EVERY_S: Final = 0.001
#: The clocks are compared anew when a run starts so long after the last comparison.
_CLOCKS_S: Final = 1.0
#: A wait longer than this is no wait but a clock that is wrong.
_LONGEST_WAIT_S: Final = 10 * 365 * 86400.0


class Usage(NamedTuple):
    """What one run has taken: seconds of processor time, and KiB by which it has raised its process's peak."""

    cpu_s: float
    peak_kib: int


class Meter:
    """One per child; its thread alone uses it. Moments are on the monotonic clock."""

    def __init__(self) -> None:
        self._read_at = -_EVERY_S
        self._cpu_s = 0.0
        self._peak_kib = 0
        self._unread_s = 0.0  # of runs that have ended since the last reading
        self._usage: Usage | None = None  # of the present run, if it was asked for before its end
        self._compared_at = -_CLOCKS_S
        self._base = 0.0  # what the monotonic clock lacks to the time of day

    def begin(self) -> None:
        """A child has been forked: what its parent used is not its own."""
        self._read(time.monotonic())

    def waited(self, message: Message) -> float:
        """How long `message` has waited since it was published or due, whichever is later; -1.0 if it does not say."""
        tag, eta = message.properties.get("delivery_tag"), message.eta
        # Seen here already, because most messages of Celery end here: this is called for each.
        since = published_at(tag) if type(tag) is str and tag[VERSION_AT : VERSION_AT + 1] == DATED else 0.0
        if eta is not None and eta > since:
            since = eta
        if not since:
            return -1.0
        started = time.monotonic()
        if started - self._compared_at >= _CLOCKS_S:
            self._compared_at = started
            self._base = wall_time() - started
        wait_s = started + self._base - since
        return 0.0 if wait_s < 0.0 else wait_s if wait_s < _LONGEST_WAIT_S else -1.0

    def usage(self, started: float) -> Usage:
        """What the run that began at `started` has used so far; for its log line, near its end."""
        now = time.monotonic()
        if now - self._read_at < _EVERY_S:
            return Usage(now - started, 0)
        self._usage = self._measured(now)
        return self._usage

    def note(self, outcome: Outcome, now: float) -> None:
        """The run has ended: write what it has used into its outcome, whose `busy_s` is set."""
        usage, self._usage = self._usage, None
        if usage is not None:
            outcome.cpu_s, outcome.peak_kib = usage
        elif now - self._read_at >= _EVERY_S:
            outcome.cpu_s, outcome.peak_kib = self._measured(now)
        else:
            outcome.cpu_s = outcome.busy_s
            self._unread_s += outcome.busy_s

    def _measured(self, now: float) -> Usage:
        cpu_s, peak_kib, unread_s = self._cpu_s, self._peak_kib, self._unread_s
        self._read(now)
        return Usage(max(0.0, self._cpu_s - cpu_s - unread_s), self._peak_kib - peak_kib)

    def _read(self, now: float) -> None:
        own, ended = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
        self._cpu_s = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime
        self._peak_kib = own.ru_maxrss
        self._read_at = now
        self._unread_s = 0.0


#: This process's.
meter: Final = Meter()
