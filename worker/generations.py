"""The spawners of one worker, over time: the current one, one that is to replace it, one whose children are leaving.

Owned by the master's main thread. A reload starts a successor; when that has imported the application it becomes the
current one, and the old one stays until its last child has left. A current one that dies is started anew, after ever
longer waits.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

from ..core.clock import Clock
from ..pool import SlotTable
from .crew import Crew, Spawner

logger = logging.getLogger("qworker.worker")

StartSpawner = Callable[[SlotTable, Literal["fork", "spawn"]], Spawner]

#: A spawner that keeps dying is started again at ever longer intervals, up to this.
LONGEST_RESPAWN_S: Final = 15.0
_FIRST_RESPAWN_S: Final = 0.25


class Generations:
    """Who forks children. `current` is None between the death of a spawner and the start of the next."""

    def __init__(self, start: StartSpawner, table: SlotTable, clock: Clock) -> None:
        self._start = start
        self._table = table
        self._clock = clock
        self._successor: Spawner | None = None
        self._predecessor: Spawner | None = None
        self._deaths = 0
        self._respawn_at = math.inf
        self.current: Spawner | None = None

    def begin(self) -> None:
        """Fork the first one: the master has no threads yet, so both share memory."""
        self.current = self._start(self._table, "fork")

    def all(self) -> list[Spawner]:
        """Every spawner that there is, for `select`."""
        return [s for s in (self.current, self._successor, self._predecessor) if s is not None]

    def next_at(self) -> float:
        """When `tend` has something to do."""
        return self._respawn_at

    def hear(self, spawners: Iterable[Spawner], crew: Crew | None) -> Iterator[dict[str, Any]]:
        """Hand on what these spawners report about the application and children.

        What concerns a reload is dealt with here. A current spawner that has gone is reported as the event `gone`.
        """
        for spawner in spawners:
            reports = spawner.reports()
            if reports is None:
                yield from self._gone(spawner, crew)
                continue
            for report in reports:
                if spawner is self._successor:
                    self._on_successor(spawner, report, crew)
                else:
                    yield report

    def reload(self) -> None:
        """Have a successor import the application; the old children go on until it has succeeded."""
        if self._successor is not None or self._predecessor is not None:
            logger.info("a reload is under way already")
            return
        logger.info("reload: importing the application anew")
        self._successor = self._exec()

    def tend(self, crew: Crew) -> None:
        """Start a spawner when one is due; finish or abandon a reload."""
        old = self._predecessor
        if old is not None and crew.is_hopeless:
            self._abandon(crew, old)
        elif old is not None and not crew.has_children_of(old):
            old.close()
            self._predecessor = None
            logger.info("reload: done, the old children have left")
        if self.current is None and self._clock.monotonic() >= self._respawn_at:
            self._respawn_at = math.inf
            self.current = self._exec()

    def close(self, timeout_s: float) -> None:
        """End them all; one that is still importing is not waited for."""
        for spawner in self.all():
            spawner.close(0.0 if spawner is self._successor else timeout_s)

    def _exec(self) -> Spawner:
        # Exec, not fork: by now this process has threads, whose locks a forked child would find locked for ever.
        return self._start(self._table, "spawn")

    def _on_successor(self, spawner: Spawner, report: dict[str, Any], crew: Crew | None) -> None:
        self._successor = None
        if report["event"] == "failed":
            trouble = "\n".join(filter(None, [report["text"], report["details"].rstrip()]))
            logger.error("reload: the new code cannot be used, the old children go on: %s", trouble)
            spawner.close()
            return
        self._predecessor, self.current = self.current, spawner
        self._respawn_at = math.inf
        if crew is not None:
            crew.renew()

    def _abandon(self, crew: Crew, old: Spawner) -> None:
        logger.error("reload: new children cannot start, the old ones go on: %s", crew.boot_trouble)
        crew.restore(old)
        self.current, self._predecessor = old, self.current

    def _gone(self, spawner: Spawner, crew: Crew | None) -> Iterator[dict[str, Any]]:
        """A spawner has died, and its children with it."""
        spawner.close()
        if spawner is self._successor:
            self._successor = None
            logger.error("reload: the process that imports the application has died, the old children go on")
        elif spawner is self._predecessor:
            self._predecessor = None
            if crew is not None:
                crew.orphaned(spawner, is_first=True)
        else:
            self.current = None
            if crew is not None:
                crew.orphaned(spawner, is_first=not self._deaths)
            yield {"event": "gone", "pid": spawner.pid, "wait_s": self._respawn_later()}

    def _respawn_later(self) -> float:
        wait_s = min(LONGEST_RESPAWN_S, _FIRST_RESPAWN_S * 2.0**self._deaths) if self._deaths else 0.0
        self._deaths += 1
        self._respawn_at = self._clock.monotonic() + wait_s
        return wait_s
