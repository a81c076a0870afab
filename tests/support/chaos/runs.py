"""What was published and what ran: tasks as the load writes them down, and runs as the book and the pulse tell them.

The judge (`judge.py`) holds one against the other; faults (`faults.py`) know which runs they may have cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .book import LENGTH
from .pulse import RECORD

Key = tuple[str, int]


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
