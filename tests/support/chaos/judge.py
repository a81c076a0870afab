"""The judge: from what was published, what ran, what was broken and where messages are now, what went wrong.

Knows nothing of qworker: it reads the book (`book.py`) and the list of faults that the test has injected, and holds
the promises against them. A run may be repeated only if a fault of the test can have cut it or its ack. Called by the
scenarios at their end; `tests/chaos/test_judge.py` feeds it bad books.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final

from .book import LENGTH
from .pulse import RECORD

#: A task that ended this long before its worker was killed may run again: its ack had not left yet.
ACK_WINDOW_S: Final = 0.05
#: On a machine where processes wait for a processor that time does not count, but no ack takes longer than this.
LONGEST_ACK_S: Final = 1.0
#: So many crashes put a message into the dead-letter store.
MOST_CRASHES: Final = 3

Key = tuple[str, int]


def demand_none(*complaints: Sequence[str]) -> None:
    """Fail with every complaint in full."""
    found = [text for some in complaints for text in some]
    if found:
        raise AssertionError(f"{len(found)} complaints:\n" + "\n".join(found))


@dataclass(slots=True)
class Run:
    """One run, as the book tells it. Times are of CLOCK_BOOTTIME, the same for all processes of this host."""

    key: Key
    nonce: str
    worker: str
    pid: int
    ppid: int
    started: float
    seen: float  # the last sign of life
    ended: float | None = None
    was_cut: bool = False  # left by an exception: a cold stop


@dataclass(frozen=True, slots=True)
class Task:
    """One published message. It runs once for each of `attempts` (the first and its retries)."""

    id: str
    attempts: int = 1
    at_most_once: bool = False
    not_before: float = 0.0
    after: str | None = None  # a link of a chain: the task that must have ended before
    is_certain: bool = True  # False: its publish failed, so it may be there or not
    published: float = 0.0

    @property
    def keys(self) -> list[Key]:
        """Each run that has to end once."""
        return [(self.id, attempt) for attempt in range(self.attempts)]


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
        calm_s = moment - run.ended - (self._waited_until(moment) - self._waited_until(run.ended))
        return calm_s > self._ack_s or moment > run.ended + LONGEST_ACK_S

    def _waited_until(self, moment: float) -> float:
        """By the last record before; what comes after the last one is calm."""
        at = bisect_right(self._moments, moment)
        return self._waited[at - 1] if at else self._waited[0] if self._waited else 0.0


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


@dataclass(slots=True)
class Verdict:
    """What the judge found. `complaints` is empty when every promise was kept; the rest is for the table."""

    complaints: list[str] = field(default_factory=list)
    runs: int = 0
    lost: int = 0
    repeated: int = 0  # runs again, allowed or not
    in_ack_window: int = 0  # of these, after an end that could not be told any more
    stretched: int = 0  # of these, after more than 50 ms, on a machine that was out of breath
    vanished: int = 0  # at-most-once messages that never ran, because their child was killed before they could
    dead: int = 0
    recovery_s: list[float] = field(default_factory=list)  # from the fault to the next run


def read_book(path: Path) -> tuple[list[Run], list[str]]:
    """All runs in the order of their starts, and complaints about records that make no sense."""
    data = path.read_bytes() if path.exists() else b""
    runs: dict[str, Run] = {}
    complaints = [f"the book is torn: {len(data)} bytes"] if len(data) % LENGTH else []
    for at in range(0, len(data) - len(data) % LENGTH, LENGTH):
        record = data[at : at + LENGTH]
        try:
            _read(record, runs)
        except (ValueError, KeyError, UnicodeDecodeError) as error:
            complaints.append(f"a record makes no sense ({error!r}): {record!r}")
    return sorted(runs.values(), key=lambda run: run.started), complaints


def read_pulse(path: Path) -> list[tuple[float, float]]:
    """Moments, and how long processes had waited for a processor up to then."""
    data = path.read_bytes() if path.exists() else b""
    return [(at, waited) for at, waited in RECORD.iter_unpack(data[: len(data) - len(data) % RECORD.size])]


def _read(record: bytes, runs: dict[str, Run]) -> None:
    kind, task_id, attempt, nonce, worker, pid, ppid, at = record.decode().split()
    moment = float(at)
    if kind == "start":
        if nonce in runs:
            raise ValueError("a second start of one run")
        runs[nonce] = Run((task_id, int(attempt)), nonce, worker, int(pid), int(ppid), moment, moment)
        return
    run = runs[nonce]
    if run.ended is not None or run.was_cut:
        raise ValueError("a record of a run that has ended")
    run.seen = moment
    if kind == "end":
        run.ended = moment
    elif kind == "cut":
        run.was_cut = True
    elif kind != "tick":
        raise ValueError("an unknown kind")


def judge(
    tasks: Iterable[Task],
    runs: Sequence[Run],
    faults: Sequence[Fault] = (),
    *,
    left: Mapping[str, str] | None = None,
    dead: Iterable[str] = (),
    results: Mapping[str, str | None] | None = None,
    pulse: Sequence[tuple[float, float]] = (),
    ack_s: float = ACK_WINDOW_S,
) -> Verdict:
    """Hold every promise against the book.

    `left` tells where messages still are (task id → place), `dead` which are dead letters, `results` what each task is
    said to have returned (its run's name); None means that nobody asked. `pulse` tells when processes
    of this machine waited for a processor (pulse.py).
    """
    case = _Case({task.id: task for task in tasks}, runs, faults, left or {}, frozenset(dead), CalmClock(pulse, ack_s))
    case.losses()
    case.repeats()
    case.overlaps()
    case.order()
    if results is not None:
        case.results(results)
    return case.verdict


class _Case:
    def __init__(
        self,
        tasks: Mapping[str, Task],
        runs: Sequence[Run],
        faults: Sequence[Fault],
        left: Mapping[str, str],
        dead: frozenset[str],
        clock: CalmClock,
    ) -> None:
        self._tasks = tasks
        self._faults = faults
        self._left = left
        self._dead = dead
        self._clock = clock
        self._by_key: dict[Key, list[Run]] = defaultdict(list)
        self._by_id: dict[str, list[Run]] = defaultdict(list)
        for run in sorted(runs, key=lambda r: r.started):
            self._by_key[run.key].append(run)
            self._by_id[run.key[0]].append(run)
        self._next_start = _next_starts(runs)
        self.verdict = Verdict(runs=len(runs))

    def losses(self) -> None:
        """Every message ended, is a dead letter for a reason, or is said to have never been published."""
        for task in self._tasks.values():
            where = self._left.get(task.id)
            if where:
                self._complain(f"stuck: {task.id} still is in {where}")
            elif task.id in self._dead:
                self._check_dead(task)
            elif task.at_most_once:
                self.verdict.vanished += not self._by_id[task.id]
            else:
                self._check_lost(task)
        for stranger in sorted((set(self._left) | self._dead) - set(self._tasks)):
            self._complain(f"stranger: {stranger} was never published")

    def _check_lost(self, task: Task) -> None:
        if self._is_cut_off(task):
            return
        missing = [key for key in task.keys if not any(run.ended for run in self._by_key[key])]
        is_forgotten = any(isinstance(f, Amnesia) and f.since <= task.published <= f.until for f in self._faults)
        if missing and not is_forgotten and (task.is_certain or self._by_id[task.id]):
            self.verdict.lost += 1
            self._complain(f"lost: {task.id} attempt {missing[0][1]} never ended and is nowhere on the broker")

    def _is_cut_off(self, task: Task) -> bool:
        """Whether a link before it is a dead letter, so that it was never published."""
        while task.after is not None:
            task = self._tasks[task.after]
            if task.id in self._dead:
                return True
        return False

    def _check_dead(self, task: Task) -> None:
        self.verdict.dead += 1
        cut = sum(self._cause(run) is not None for run in self._by_id[task.id])
        if cut < MOST_CRASHES:
            self._complain(f"dead without a reason: {task.id} was cut {cut} times only")

    def repeats(self) -> None:
        """A run that nothing has cut is the last of its message; at most once means at most once."""
        for key, runs in self._by_key.items():
            task = self._tasks.get(key[0])
            if task is None or key not in task.keys:
                self._complain(f"stranger: {key} ran and was never published")
                continue
            for run, following in zip(runs, [*runs[1:], None], strict=False):
                self._check_repeat(task, run, following)

    def _check_repeat(self, task: Task, run: Run, following: Run | None) -> None:
        cause = self._cause(run)
        if run.ended is None and cause is None:
            self._complain(f"vanished: {_told(run)} neither ended nor was it cut by a fault of the test")
        if following is None:
            return
        self.verdict.repeated += 1
        if task.at_most_once and not isinstance(cause, Amnesia):
            self._complain(f"twice: {task.id} may run once at most: {_told(run)}, then {_told(following)}")
        elif cause is None or _moment(cause) > following.started:
            self._complain(
                f"repeated though nothing cut it: {_told(run)}, then {_told(following)}; "
                f"faults of that worker: {[fault for fault in self._faults if _worker(fault) == run.worker]}"
            )
        else:
            self.verdict.in_ack_window += run.ended is not None
            self.verdict.stretched += run.ended is not None and _moment(cause) > run.ended + ACK_WINDOW_S
            self.verdict.recovery_s.append(following.started - _moment(cause))

    def overlaps(self) -> None:
        """No message runs twice at the same time, unless its worker had lost its lease."""
        for runs in self._by_id.values():
            for at, run in enumerate(runs):
                for other in runs[at + 1 :]:
                    if other.started < run.seen and not isinstance(self._cause(run), Silence):
                        self._complain(f"two at a time: {_told(run)} and {_told(other)}")

    def order(self) -> None:
        """Nothing starts before its time, nor before the end of what it follows."""
        for task in self._tasks.values():
            runs = self._by_id[task.id]
            if not runs:
                continue
            if runs[0].started < task.not_before:
                self._complain(f"early: {_told(runs[0])}, which is {task.not_before - runs[0].started:.3f} s too early")
            if task.after is not None and self._end_of(task.after) > runs[0].started:
                self._complain(f"early: {_told(runs[0])} before {task.after} had ended")

    def _end_of(self, task_id: str) -> float:
        """The first end of its last attempt."""
        last = self._tasks[task_id].keys[-1]
        return min((run.ended for run in self._by_key[last] if run.ended), default=inf)

    def results(self, results: Mapping[str, str | None]) -> None:
        """The stored result is that of a run which ended, and not of one whose worker had lost the message by then."""
        for task in self._tasks.values():
            if task.at_most_once or task.id in self._dead or task.id in self._left:
                continue
            ended = {run.nonce: run for run in self._by_key[task.keys[-1]] if run.ended is not None}
            told = results.get(task.id)
            if not ended:
                continue
            if told not in ended:
                self._complain(f"result: that of {task.id} is {told!r}, and the runs that ended are {sorted(ended)}")
            elif self._came_late(ended[told]) and not all(map(self._had_lost, ended.values())):
                runs = "; ".join(f"{_told(run)}, {self._cause(run)}" for run in ended.values())
                self._complain(f"result: that of {task.id} is {told}'s, whose worker had lost it; all runs: {runs}")

    def _came_late(self, run: Run) -> bool:
        """Whether the worker should have known that this result is not its own to store any more.

        One that was stopped between making sure of that and writing, which only a run that had just ended can meet,
        writes when it goes on: no process can look and write in one step on a server that it does not own.
        """
        cause = self._cause(run)
        if not isinstance(cause, Silence):
            return False
        return not cause.is_pause or run.ended is None or run.ended > cause.since

    def _had_lost(self, run: Run) -> bool:
        return isinstance(self._cause(run), Silence)

    def _cause(self, run: Run) -> Fault | None:
        """The earliest fault that may have cut this run or its ack."""
        if run.was_cut:
            return Kill(run.seen, run.worker, run.pid)
        causes = [f for f in self._faults if f.may_have_cut(run, self._clock) and not self._was_told(run, f)]
        return min(causes, key=_moment) if causes else None

    def _was_told(self, run: Run, fault: Fault) -> bool:
        """Whether the master knew of this end: the child had begun its next run, and only then it was killed."""
        is_inner = isinstance(fault, Kill) and fault.pid is not None
        return is_inner and run.ended is not None and self._next_start.get(run.nonce, inf) <= _moment(fault)

    def _complain(self, text: str) -> None:
        self.verdict.complaints.append(text)


def _next_starts(runs: Sequence[Run]) -> dict[str, float]:
    """For each run when its process began the next one."""
    last: dict[tuple[str, int], Run] = {}
    found: dict[str, float] = {}
    for run in sorted(runs, key=lambda r: r.started):
        before = last.get((run.worker, run.pid))
        if before is not None:
            found[before.nonce] = run.started
        last[run.worker, run.pid] = run
    return found


def _worker(fault: Fault) -> str | None:
    return None if isinstance(fault, Amnesia) else fault.worker


def _moment(fault: Fault) -> float:
    return fault.at if isinstance(fault, Kill) else fault.since


def _told(run: Run) -> str:
    end = "no end" if run.ended is None else f"to {run.ended:.3f}"
    return f"{run.key[0]}#{run.key[1]} {run.nonce} in {run.worker} pid {run.pid} from {run.started:.3f} {end}"
