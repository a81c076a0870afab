"""What a worker has done so far, in numbers: filled by its consumer thread, read by whoever shows it.

The children measure each run and send the numbers with the outcome (`tasks/usage.py`, `pool/wire.py`). `Tally.ended` is
called once per message and so is part of the hot path: 0.5 µs. Plain integers that one thread writes and any thread
reads: each number is right, together they are a moment apart.

What can be a label is bounded: names of tasks that this worker has registered, its own queues, words from this file;
anything else becomes `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from enum import IntEnum
from typing import Final

#: Upper ends of the histograms' steps in seconds; the last step has none.
STEPS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
OTHER: Final = "other"

#: So many pairs of a label are told apart; a worker whose code is reloaded with ever new names stays bounded.
_MOST_PAIRS: Final = 5000
_OTHER: Final = b"other"


class Ending(IntEnum):
    """How one run of a message has ended. The names, in lower case, are the values of the label `outcome`."""

    NONE = 0  # nothing was run: the message is not due yet, or somebody else's; it is not counted
    SUCCEEDED = 1
    FAILED = 2
    RETRIED = 3
    IGNORED = 4
    REJECTED = 5
    REQUEUED = 6  # the task gave its message back
    EXPIRED = 7
    REFUSED = 8  # it can never run: unknown task, bad message
    CUT = 9  # by a stop, or because others died; it runs again
    CRASHED = 10  # its child died
    TIMED_OUT = 11


class TaskTally:
    """One task on one queue. Sums are in seconds and KiB; `runs` and `waits` count per step of STEPS, and beyond."""

    __slots__ = ("cpu_s", "endings", "peak_kib", "run_s", "runs", "wait_s", "waits")

    def __init__(self) -> None:
        self.endings = [0] * len(Ending)
        self.runs = [0] * (len(STEPS) + 1)
        self.run_s = 0.0
        self.waits = [0] * (len(STEPS) + 1)
        self.wait_s = 0.0
        self.cpu_s = 0.0
        self.peak_kib = 0


class Tally:
    """Everything counted. One thread calls the verbs; any thread reads what the methods below them return."""

    def __init__(self, tasks: Collection[str] = (), queues: Collection[str] = ()) -> None:
        self._names = {name.encode("utf-8", "surrogatepass") for name in tasks}
        self._queues = frozenset(queues)
        self._tasks: dict[tuple[bytes, str], TaskTally] = {}
        self._restarts: dict[str, int] = {}
        self._recovered: dict[str, int] = {}
        self._dead: dict[tuple[str, str], int] = {}

    def ended(
        self, task: bytes, queue: str, ending: int, run_s: float, wait_s: float, cpu_s: float, peak_kib: int
    ) -> None:
        """A child has run a message of a registered task. `peak_kib`: by how much that has raised the child's peak."""
        one = self._tasks.get((task, queue))
        if one is None:
            self._names.add(task)  # children name registered tasks only; after a reload there may be new ones
            one = self._of(task, queue)
        one.endings[ending] += 1
        one.runs[0 if run_s <= 0.005 else bisect_left(STEPS, run_s)] += 1
        one.run_s += run_s
        one.waits[0 if wait_s <= 0.005 else bisect_left(STEPS, wait_s)] += 1
        one.wait_s += wait_s
        one.cpu_s += cpu_s
        if peak_kib > one.peak_kib:
            one.peak_kib = peak_kib

    def noted(self, task: str | None, queue: str, ending: int) -> None:
        """A message has ended without a run, or without a word from its child. `task` is what it says itself."""
        name = (task or OTHER).encode("utf-8", "surrogatepass")
        self._of(name if name in self._names else _OTHER, queue).endings[ending] += 1

    def restarted(self, reason: str) -> None:
        """A child has gone that another one replaces."""
        self._restarts[reason] = self._restarts.get(reason, 0) + 1

    def recovered(self, cause: str, count: int) -> None:
        """So many messages are back that were in nobody's hands."""
        if count:
            self._recovered[cause] = self._recovered.get(cause, 0) + count

    def buried(self, queue: str, reason: str) -> None:
        """A message has gone to the dead letters."""
        key = (queue if queue in self._queues else OTHER, reason)
        if key not in self._dead and len(self._dead) >= _MOST_PAIRS:
            key = (OTHER, OTHER)
        self._dead[key] = self._dead.get(key, 0) + 1

    def tasks(self) -> dict[tuple[str, str], TaskTally]:
        """By task and queue."""
        pairs = self._tasks.copy()
        return {(task.decode("utf-8", "replace") or OTHER, queue): one for (task, queue), one in pairs.items()}

    def endings(self) -> dict[str, int]:
        """How many runs have ended how, over all tasks; what has not happened is left out."""
        sums = [sum(counts) for counts in zip(*(one.endings for one in self._tasks.copy().values()), strict=True)]
        return {ending.name.lower(): sums[ending] for ending in Ending if sums and sums[ending] and ending}

    def restarts(self) -> dict[str, int]:
        """Children that were replaced, by reason."""
        return self._restarts.copy()

    def recoveries(self) -> dict[str, int]:
        """Messages that came back, by cause."""
        return self._recovered.copy()

    def dead(self) -> dict[tuple[str, str], int]:
        """Dead letters that this worker has made, by queue and reason."""
        return self._dead.copy()

    def _of(self, task: bytes, queue: str) -> TaskTally:
        key = (task, queue if queue in self._queues else OTHER)
        if key not in self._tasks and len(self._tasks) >= _MOST_PAIRS:
            key = (_OTHER, OTHER)
        return self._tasks.setdefault(key, TaskTally())
