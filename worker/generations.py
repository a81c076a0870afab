"""The spawners of one worker, over time: the current one, one that is to replace it, and those whose children leave.

Owned by the master's main thread. A reload starts a successor; when that has imported the application it becomes the
current one, and the one before it stays until its last child has left. Until the new children have shown that they can
start, the last generation that could is remembered: if they cannot, it goes on, and the new one is given up for good.
A current one that dies is started anew, after ever longer waits.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

from ..core import log_events, logs
from ..core.clock import Clock
from ..pool import SlotTable
from .crew import Crew
from .spawning import Spawner
from .vigil import EVERY_S, LOOKS, Vigil

logger = logging.getLogger("qworker.worker")

StartSpawner = Callable[[SlotTable, Literal["fork", "spawn"]], Spawner]

#: A spawner that keeps dying is started again at ever longer intervals, up to this.
LONGEST_RESPAWN_S: Final = 15.0
_FIRST_RESPAWN_S: Final = 0.25
#: After so long without a death the next one is an accident again.
FORGET_DEATHS_S: Final = 600.0


class Generations:
    """Who forks children. `current` is None between the death of a spawner and the start of the next."""

    def __init__(self, start: StartSpawner, table: SlotTable, clock: Clock) -> None:
        self._start = start
        self._table = table
        self._clock = clock
        self._successor: Spawner | None = None
        self._is_asked_again = False  # for a reload, while a successor was importing
        self._fallback: Spawner | None = None  # among those that leave: what to go back to
        self._importing: set[Spawner] = set()
        self._leaving: dict[Spawner, str] = {}  # and what to say when its last child has left
        self._deaths = 0
        self._died_at = -math.inf
        self._respawn_at = math.inf
        self._vigil = Vigil(clock)
        self.current: Spawner | None = None
        self.trouble = ""  # why the last reload came to nothing

    def begin(self) -> None:
        """Fork the first one: the master has no threads yet, so both share memory."""
        self.current = self._begun("fork")

    def all(self) -> list[Spawner]:
        """Every spawner that there is, for `select`."""
        return [s for s in (self.current, self._successor, *self._leaving) if s is not None]

    @property
    def is_reloading(self) -> bool:
        """Whether a new generation imports, or has still to show that its children start."""
        return self._successor is not None or self._fallback is not None

    def next_at(self) -> float:
        """When `tend` has something to do."""
        return min(self._respawn_at, self._vigil.next_at())

    def hear(self, spawners: Iterable[Spawner], crew: Crew | None) -> Iterator[dict[str, Any]]:
        """Hand on what these spawners report about the application and children.

        What concerns a reload is dealt with here. A current spawner that has gone is reported as the event `gone`.
        """
        for spawner in spawners:
            reports = spawner.reports()
            if reports is None:
                yield from self._gone(spawner, crew)
                continue
            if reports and spawner is self.current:
                self._vigil.hears()
            for report in reports:
                self._importing.discard(spawner)
                if spawner is self._successor:
                    self._on_successor(spawner, report, crew)
                elif spawner is self.current or report["event"] != "failed":
                    yield report

    def reload(self) -> None:
        """Have a successor import the application; the old children go on until it has succeeded."""
        if self._successor is not None:
            logs.say(logger, logging.INFO, log_events.RELOAD_WAITS, "a reload is under way: another one follows it")
            self._is_asked_again = True
            return
        logs.say(logger, logging.INFO, log_events.RELOAD_BEGUN, "reload: importing the application anew")
        try:
            self._successor = self._exec()
        except OSError as error:
            self.trouble = f"no process can be started ({error.strerror})"
            _say_failed(f"{self.trouble}, the old children go on")

    def tend(self, crew: Crew) -> None:
        """Start a spawner when one is due; finish or give up a reload."""
        if self._fallback is not None and crew.is_hopeless:
            self._give_up(crew, self._fallback, f"new children cannot start: {crew.boot_trouble}")
        elif crew.is_ready and self._fallback is not None:
            logs.say(
                logger,
                logging.INFO,
                log_events.RELOAD_WORKS,
                "reload: the new children work, the old ones finish what they run",
            )
            self._fallback = None
        for spawner in [s for s in self._leaving if s is not self._fallback and not crew.has_children_of(s)]:
            spawner.close()
            logs.say(
                logger, logging.INFO, log_events.RELOAD_DONE, "reload: {result}", result=self._leaving.pop(spawner)
            )
        owes = self.current is not None and self.current not in self._importing and crew.is_owed_by(self.current)
        if self._vigil.is_over(owes=owes) and self.current is not None:
            self._end_stuck(self.current)
        if self.current is None and self._clock.monotonic() >= self._respawn_at:
            self._respawn_at = math.inf
            try:
                self.current = self._exec()
            except OSError as error:
                self._not_started(error)

    def close(self, timeout_s: float) -> None:
        """End them all; one that is still importing is not waited for."""
        for spawner in self.all():
            spawner.close(0.0 if spawner in self._importing else timeout_s)

    def _exec(self) -> Spawner:
        # Exec, not fork: by now this process has threads, whose locks a forked child would find locked for ever.
        return self._begun("spawn")

    def _begun(self, method: Literal["fork", "spawn"]) -> Spawner:
        spawner = self._start(self._table, method)
        self._importing.add(spawner)
        return spawner

    def _on_successor(self, spawner: Spawner, report: dict[str, Any], crew: Crew | None) -> None:
        self._end_import()
        if report["event"] == "failed":
            trouble = "\n".join(filter(None, [report["text"], report["details"].rstrip()]))
            self.trouble = report["text"]
            _say_failed(f"the new code cannot be used, the old children go on: {trouble}")
            spawner.close()
            return
        self.trouble = ""
        if self.current is not None:
            self._leaving[self.current] = "done, the old children have left"
            self._fallback = self._fallback or self.current
        self.current = spawner
        self._respawn_at = math.inf
        if crew is not None:
            crew.renew()

    def _end_stuck(self, spawner: Spawner) -> None:
        """It would neither reap nor kill anybody: as it is, children that die are not seen. Its death is, next."""
        logs.say(
            logger,
            logging.ERROR,
            log_events.SPAWNER_STUCK,
            "the spawner (pid {spawner}) was asked for a child and has not answered for {since_s:g} s: it is killed; "
            "a fork handler of the application (os.register_at_fork) may hang",
            spawner=spawner.pid,
            since_s=EVERY_S * LOOKS,
        )
        self._vigil.hears()
        spawner.kill()

    def _end_import(self) -> None:
        self._successor = None
        if self._is_asked_again:
            self._is_asked_again = False
            self.reload()

    def _give_up(self, crew: Crew, old: Spawner, why: str) -> None:
        """Back to the old generation. There is no way back to the new one: what is left of it only leaves."""
        self.trouble = why
        _say_failed(f"{why}; the old children go on")
        if self.current is not None:
            self._leaving[self.current] = "what was left of the new children has gone"
        del self._leaving[old]
        self.current, self._fallback = old, None
        crew.roll_back(old)

    def _gone(self, spawner: Spawner, crew: Crew | None) -> Iterator[dict[str, Any]]:
        """A spawner has died, and its children with it."""
        self._importing.discard(spawner)
        spawner.close()
        if spawner is self._successor:
            self.trouble = "the process that imports the application has died"
            self._end_import()
            _say_failed(f"{self.trouble}, the old children go on")
        elif spawner is self.current:
            self.current = None
            if self._clock.monotonic() - self._died_at >= FORGET_DEATHS_S:
                self._deaths = 0
            if crew is not None:
                crew.orphaned(spawner, is_first=self._fallback is not None or not self._deaths)
            if crew is not None and self._fallback is not None:
                self._give_up(crew, self._fallback, "the process that forks the new children has died")
            else:
                yield {"event": "gone", "pid": spawner.pid, "wait_s": self._respawn_later()}
        elif self._leaving.pop(spawner, None) is not None:
            if spawner is self._fallback:
                self._fallback = None
            if crew is not None:
                crew.orphaned(spawner, is_first=True)

    def _not_started(self, error: OSError) -> None:
        """The system allows no process more: the spawner is started later."""
        logs.say(
            logger,
            logging.ERROR,
            log_events.NO_MORE_CHILDREN,
            "the process that forks children cannot be started ({why}): trying again in {wait_s:.1f} s",
            why=error.strerror,
            wait_s=self._respawn_later(),
        )

    def _respawn_later(self) -> float:
        wait_s = min(LONGEST_RESPAWN_S, _FIRST_RESPAWN_S * 2.0**self._deaths) if self._deaths else 0.0
        self._deaths += 1
        self._died_at = self._clock.monotonic()
        self._respawn_at = self._clock.monotonic() + wait_s
        return wait_s


def _say_failed(reason: str) -> None:
    logs.say(logger, logging.ERROR, log_events.RELOAD_FAILED, "reload: {reason}", reason=reason)
