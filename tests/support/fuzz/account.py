"""Where each pushed message must be in the end: run, dead-lettered with its bytes, expired, or waiting for its time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

from qworker.tasks import Action, Outcome, TaskExecutor
from qworker.tasks import message as reasons
from qworker.tasks.message import TOO_DEEP

from .farm import Farm

#: Why a message may be refused. `internal_error` is none of them: it would be a defect.
REASONS = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
REASONS |= {"unknown_task", "unsupported_canvas", "rejected"}

_SHORT_LIMIT_S = 1.0  # a run with such a time limit may be ended before it could note itself


def account(farm: Farm, executor: TaskExecutor, pushed: Sequence[bytes]) -> tuple[Counter[str], list[str]]:
    """Return how messages ended, and complaints about those that are not where they belong.

    `executor` says what a message is: it has the same application as the worker.
    """
    places, runs, why = farm.places(), farm.runs(), farm.dead_reasons(10 * len(pushed))
    delayed = places["delayed"] - farm.delayed_before
    ends: Counter[str] = Counter()
    complaints: list[str] = []
    for raw, count in Counter(pushed).items():
        found = (runs[digest(raw)], places["dead"][raw], delayed[raw])
        end, allowed = expected(executor, raw, count)
        ends[end] += count
        if TOO_DEEP in (end, why.get(raw)):  # what is too deep depends on the depth from which it is read
            is_right = found in [(0, count, 0), (count, 0, 0), (0, 0, count), (0, 0, 0)]
        else:
            is_right = found in allowed and (not found[1] or (why.get(raw) == end and end in REASONS))
        if not is_right:
            complaints.append(f"{end}: ran, dead, delayed = {found}, {why.get(raw)}, {count} pushed: {raw[:1500]!r}")
    if places["inflight"]:
        complaints.append(f"{sum(places['inflight'].values())} messages are still in flight")
    return ends, complaints + list(_without_result(farm, executor, places["dead"]))


def digest(raw: bytes) -> str:
    """The line that a run of this message leaves."""
    return hashlib.sha1(raw, usedforsecurity=False).hexdigest()


def expected(executor: TaskExecutor, raw: bytes, count: int) -> tuple[str, list[tuple[int, int, int]]]:
    """How a message has to end, and the allowed (runs, dead letters, delayed ones) of `count` copies."""
    job = executor.prepare(raw, "fuzz", 0)
    if not isinstance(job, Outcome):
        least = 0 if job.hard_s is not None and job.hard_s < _SHORT_LIMIT_S else count
        return "run", [(ran, 0, 0) for ran in range(least, count + 1)]
    if job.action is Action.REJECT:
        return job.reason, [(0, count, 0)]
    if job.action is Action.PARK:
        return "delayed", [(0, 0, count)]
    return "expired", [(0, 0, 0)]


def _without_result(farm: Farm, executor: TaskExecutor, dead: Counter[bytes]) -> Iterator[str]:
    """Dead letters whose id is known and has no result."""
    for raw in dead:
        job = executor.prepare(raw, "fuzz", 0)
        if isinstance(job, Outcome) and job.task_id and farm.app.AsyncResult(job.task_id).state == "PENDING":
            yield f"no result for the dead letter {job.task_id!r}: {raw[:500]!r}"
