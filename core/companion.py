"""What lives beside a worker in its master process, and what it may know of the worker.

A companion tells the world how the worker is (systemd's notifications, the HTTP endpoint). The command line hands
companions to the master, which opens, turns and closes them in its main thread; so a companion speaks only while the
master's loop turns, and cannot vouch for one that hangs. This file is the seam: plain data, so that neither side
imports the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .tally import Tally


@dataclass(frozen=True, slots=True)
class Status:
    """The worker at one moment. Moments are on the monotonic clock, durations in seconds.

    `phase` is a value of `worker.Phase`. `is_ready`: the application is loaded, the children are up and the broker has
    been reached, once; `is_loaded`: the first of these. `is_reloading`: a new generation of children is under way;
    `reload_trouble`: why the last one came to nothing. `is_broker_up`: the connection is there now; `broker_trouble`:
    why not. `is_consuming`: the consumer's loop turns and is not deaf (one that visibly reconnects turns).
    `deadline_in_s`: what is left of the phase's time, None = it has no limit. `size`: how many children there should
    be; `children`: those that are ready.
    """

    node: str
    pid: int
    phase: str
    is_loaded: bool
    is_ready: bool
    is_reloading: bool
    reload_trouble: str
    is_stopping: bool
    is_broker_up: bool
    broker_trouble: str
    is_consuming: bool
    uptime_s: float
    deadline_in_s: float | None
    size: int
    children: int
    busy: int
    held: int


@dataclass(frozen=True, slots=True)
class ChildNow:
    """One child at one moment. `slot` counts from 1; `pid` 0 = asked for, not yet born.

    `state`: starting, idle, busy, or leaving (another one takes its part). `runs` is "id name" of the task that it
    runs, `runs_for_s` since when.
    """

    slot: int
    pid: int
    state: str
    runs: str = ""
    runs_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class QueueSight:
    """What waits on the broker. `oldest_age_s` lacks the queues of which nobody can tell; `seen_at`: monotonic."""

    depths: Mapping[str, int]
    oldest_age_s: Mapping[str, float]
    seen_at: float


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the worker runs. URLs are shown without their secrets."""

    app: str = ""
    broker: str = ""
    results: str = ""
    queues: Sequence[str] = field(default=())


class Watched(Protocol):
    """The worker, as its companions see it. Any thread; after the worker has ended anything may be raised."""

    def status(self) -> Status:
        """The worker now."""
        ...

    def about(self) -> About:
        """Who it is; empty until the application is loaded."""
        ...

    def children(self) -> Sequence[ChildNow]:
        """Every child, by slot."""
        ...

    def tally(self) -> Tally:
        """What it has done so far."""
        ...

    def last_fetch_age_s(self) -> float | None:
        """How long ago the broker last answered a fetch; None until the application is loaded."""
        ...

    def look_at_queues(self, wait_s: float) -> QueueSight | None:
        """What waits on its queues, some seconds old at most if the answer comes within `wait_s`, else the last known.

        None while the broker is out of reach. Costs the broker a question: ask only when somebody wants to know.
        """
        ...

    def rouse(self) -> None:
        """Have the master turn, once, when the next message comes or the broker goes: its turn alone. Any thread."""
        ...


class Companion(Protocol):
    """Opened, turned and closed by the master's main thread. None of it may wait."""

    def open(self, worker: Watched) -> None:
        """Begin. The first spawner has been forked, the application is not loaded yet.

        Raises ConfigError when the worker must not start without it.
        """
        ...

    def descriptors(self) -> Sequence[int]:
        """What to wake up for when it is readable."""
        ...

    def next_at(self) -> float:
        """When to call `turn` at the latest, on the monotonic clock; inf = when something has happened."""
        ...

    def turn(self) -> None:
        """Called at the end of every turn of the master: look at the worker and act. Never raises."""
        ...

    def close(self) -> None:
        """The worker has ended. Never raises."""
        ...
