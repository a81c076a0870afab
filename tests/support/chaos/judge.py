"""The judge: from what was published, what ran, what was broken and where messages are now, what went wrong.

Knows nothing of qworker: it takes what the book says (`runs.py`) and the list of faults that the test has injected
(`faults.py`), and holds the promises against them. A run may be repeated only if a fault of the test can have cut it
or its ack. Called by the scenarios at their end; `tests/chaos/test_judge.py` feeds it bad books.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from .faults import ACK_WINDOW_S, Amnesia, CalmClock, Fault, Kill, Silence, moment_of, worker_of
from .runs import Key, Run, Task

#: So many crashes put a message into the dead-letter store.
MOST_CRASHES: Final = 3


def demand_none(*complaints: Sequence[str]) -> None:
    """Fail with every complaint in full."""
    found = [text for some in complaints for text in some]
    if found:
        raise AssertionError(f"{len(found)} complaints:\n" + "\n".join(found))


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
        elif cause is None or moment_of(cause) > following.started:
            self._complain(
                f"repeated though nothing cut it: {_told(run)}, then {_told(following)}; "
                f"faults of that worker: {[fault for fault in self._faults if worker_of(fault) == run.worker]}"
            )
        else:
            self.verdict.in_ack_window += run.ended is not None
            self.verdict.stretched += run.ended is not None and moment_of(cause) > run.ended + ACK_WINDOW_S
            self.verdict.recovery_s.append(following.started - moment_of(cause))

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
        return min(causes, key=moment_of) if causes else None

    def _was_told(self, run: Run, fault: Fault) -> bool:
        """Whether the master knew of this end: the child had begun its next run, and only then it was killed."""
        is_inner = isinstance(fault, Kill) and fault.pid is not None
        return is_inner and run.ended is not None and self._next_start.get(run.nonce, inf) <= moment_of(fault)

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


def _told(run: Run) -> str:
    end = "no end" if run.ended is None else f"to {run.ended:.3f}"
    return f"{run.key[0]}#{run.key[1]} {run.nonce} in {run.worker} pid {run.pid} from {run.started:.3f} {end}"
