"""What `qworker demo` sends, and what it expects to become of it. Plain data, used by `demo` and `demo_show`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SLOW_S: Final = 0.1


@dataclass(slots=True)
class Kind:
    """Tasks of one kind: how many, how each should end, after how many retries. `sent`: id → epoch seconds."""

    label: str
    task: str
    count: int
    end: str
    retries: int = 0
    sent: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    """What became of one task: SUCCESS, FAILURE or DEAD (dead-lettered)."""

    status: str
    retries: int
    took_s: float


def kinds_of(tasks: int) -> list[Kind]:
    """About `tasks` in all; few of them crash, because each crash costs a process."""
    share = max(1, tasks // 30)
    return [
        Kind("fast", "demo.fast", max(1, tasks - 10 * share), "SUCCESS"),
        Kind(f"slow ({SLOW_S} s)", "demo.slow", 4 * share, "SUCCESS"),
        Kind("fails once", "demo.flaky", 3 * share, "SUCCESS", retries=1),
        Kind("fails for good", "demo.failing", 2 * share, "FAILURE"),
        Kind("kills its child once", "demo.crashing", max(1, share // 2), "SUCCESS", retries=1),
        Kind("kills every child", "demo.crashing", max(1, share // 5), "DEAD", retries=2),
    ]


def mixed(kinds: Sequence[Kind]) -> list[tuple[Kind, int]]:
    """All tasks, the kinds spread evenly, as (kind, number within the kind)."""
    plan = [(index / kind.count, at, index) for at, kind in enumerate(kinds) for index in range(kind.count)]
    return [(kinds[at], index) for _, at, index in sorted(plan)]


def arguments_of(kind: Kind, index: int, folder: Path) -> tuple[Any, ...]:
    """The positional arguments of one task."""
    if kind.task == "demo.slow":
        return (SLOW_S,)
    if kind.task == "demo.flaky":
        return (kind.retries,)
    if kind.task == "demo.crashing":
        return (str(notes_of(kind, index, folder)), sys.maxsize if kind.end == "DEAD" else kind.retries)
    return (index,)


def notes_of(kind: Kind, index: int, folder: Path) -> Path:
    """The file in which a task that kills its child notes each run."""
    return folder / f"{kind.end.lower()}-{index}"


def unexpected(kinds: Sequence[Kind], ends: Mapping[str, End]) -> list[str]:
    """One sentence for each task that did not end as its kind says."""
    found = []
    for kind in kinds:
        for task_id in kind.sent:
            end = ends.get(task_id)
            if end is None:
                found.append(f"{kind.task}[{task_id}] ({kind.label}) has not ended")
            elif (end.status, end.retries) != (kind.end, kind.retries):
                expected = f"{kind.end} after {kind.retries} retries"
                found.append(f"{kind.task}[{task_id}] ({kind.label}): {end.status} after {end.retries}, not {expected}")
    return found
