"""The worker's phase, what each phase begins with, when it ends, and the exit code. Owned by the master's main thread.

`worker/phases.py` says which phase follows which; here it is done. To stop means: nothing more is fetched or started,
what runs gets the time that its phase has, and as soon as the consumer says that everything is given back (or the last
deadline has passed) the exit code is known and the master leaves.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

from ..core import journal, log_events, logs
from ..core.clock import Clock
from ..pool import SlotTable
from .exitcodes import ExitCode
from .mailbox import Mailbox
from .phases import STOPPING, Event, Phase, next_phase

logger = logging.getLogger("qworker.worker")

#: How long a cold stop leaves to tasks that it has interrupted.
COLD_S: Final = 2.0
#: How long a hard stop waits for the broker to take the messages back (the rest is left to the lease).
HARD_S: Final = 2.0


class Lifecycle:
    """Moves by events; nobody else assigns a phase.

    `has_consumer`: whether there is somebody who has fetched messages and can give them back. `soft_s`: how long a soft
    stop waits.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        table: SlotTable,
        clock: Clock,
        cut_runs: Callable[[], None],
        end_children: Callable[[], None],
        show: Callable[[str], None],
    ) -> None:
        self._show = show
        self._mailbox = mailbox
        self._table = table
        self._clock = clock
        self._cut_runs = cut_runs
        self._end_children = end_children
        self.phase = Phase.STARTING
        self.deadline = math.inf  # of the present phase, on the monotonic clock
        self.exit_code: ExitCode | None = None
        self.has_consumer = False
        self.has_drained = False
        self.soft_s = 0.0
        self._has_cut = False
        self._begins_quiet = False
        self._reason: ExitCode | None = None  # why the worker ends, if not because it was told to

    @property
    def is_stopping(self) -> bool:
        """Whether the worker has begun to stop."""
        return self.phase in STOPPING

    def move(self, event: Event) -> None:
        """Let `event` happen; a new phase begins to act."""
        before, self.phase = self.phase, next_phase(self.phase, event)
        if self.phase is before:
            self._note_early(event)
            return
        logger.debug("phase %s -> %s", before.value, self.phase.value)
        self._show(self.phase.value)
        self.deadline = math.inf
        begin = _BEGIN.get(self.phase)
        if begin is not None:
            begin(self)
        if self.is_stopping and not self.has_consumer:
            self.drained((), left=0)

    def _note_early(self, event: Event) -> None:
        """Told to be quiet before it has begun to run, the worker runs without fetching anything."""
        if self.phase is Phase.STARTING and event in (Event.QUIET, Event.RESUME):
            self._begins_quiet = event is Event.QUIET
            self._mailbox.post("quiet" if self._begins_quiet else "resume")

    def look_at_clock(self) -> None:
        """End a phase whose time is over."""
        if self._clock.monotonic() >= self.deadline:
            self.move(Event.DEADLINE)

    def fail(self, code: ExitCode) -> None:
        """End with this code: the first reason counts."""
        if self.exit_code is None and self._reason is None:
            self._reason = code
        self.move(Event.FAILED)

    def refuse(self, code: ExitCode, text: str, details: str = "") -> None:
        """End with this code because the worker cannot do what it is for; say why where its starter reads it."""
        for line in filter(None, [details.rstrip(), *(f"qworker: {problem}" for problem in text.splitlines())]):
            journal.say(line)
        self.fail(code)

    def drained(self, cut: Sequence[str], left: int) -> None:
        """Every child has gone, and the broker has everything back but `left` messages; `cut` are ids of cut tasks."""
        self.has_drained = True
        self._has_cut = bool(cut)
        if left and self._reason is None:
            self._reason = ExitCode.UNREACHABLE
        self.move(Event.DRAINED)

    def orders(self) -> Sequence[str]:
        """What a consumer that is started anew in this phase has to be told."""
        return _ORDERS.get(self.phase, ())

    def _begin_running(self) -> None:
        if self._begins_quiet:
            self._begins_quiet = False
            self.move(Event.QUIET)
        else:
            self._mailbox.post("resume")

    def _begin_quiet(self) -> None:
        logs.say(logger, logging.INFO, log_events.QUIET, "quiet: nothing new is fetched until SIGCONT")
        self._mailbox.post("quiet")

    def _begin_warm(self) -> None:
        logs.say(
            logger,
            logging.INFO,
            log_events.SHUTDOWN_WARM,
            "warm shutdown: waiting for running tasks, everything else goes back to its queue",
        )
        self._drain()

    def _begin_soft(self) -> None:
        if self.soft_s > 0:  # otherwise the cold stop follows at once
            logs.say(
                logger,
                logging.INFO,
                log_events.SHUTDOWN_SOFT,
                "soft shutdown: running tasks have {limit_s:g} s, everything else goes back to its queue",
                limit_s=self.soft_s,
            )
        self._drain()
        self.deadline = self._clock.monotonic() + self.soft_s

    def _begin_cold(self) -> None:
        logs.say(
            logger,
            logging.WARNING,
            log_events.SHUTDOWN_COLD,
            "cold shutdown: running tasks are interrupted, and killed after {limit_s:g} s",
            limit_s=COLD_S,
        )
        self._drain()
        self._mailbox.post("cut")
        self._cut_runs()
        self.deadline = self._clock.monotonic() + COLD_S

    def _begin_hard(self) -> None:
        if self.has_consumer:
            logs.say(
                logger,
                logging.WARNING,
                log_events.SHUTDOWN_HARD,
                "hard shutdown: children are killed, their messages go back",
            )
        self._drain()
        self._end_children()
        self.deadline = self._clock.monotonic() + HARD_S

    def _begin_stopped(self) -> None:
        if not self.has_drained and self._reason is None:
            logs.say(
                logger, logging.ERROR, log_events.NOT_GIVEN_BACK, "the broker did not take the messages back in time"
            )
            self._reason = ExitCode.UNREACHABLE
        self.exit_code = self._reason or (ExitCode.CUT if self._has_cut else ExitCode.OK)

    def _drain(self) -> None:
        self._table.set_stopping()
        self._mailbox.post("drain")


_BEGIN: Final[dict[Phase, Callable[[Lifecycle], None]]] = {
    Phase.RUNNING: Lifecycle._begin_running,
    Phase.QUIET: Lifecycle._begin_quiet,
    Phase.WARM: Lifecycle._begin_warm,
    Phase.SOFT: Lifecycle._begin_soft,
    Phase.COLD: Lifecycle._begin_cold,
    Phase.HARD: Lifecycle._begin_hard,
    Phase.STOPPED: Lifecycle._begin_stopped,
}
_ORDERS: Final = {
    Phase.QUIET: ("quiet",),
    Phase.WARM: ("drain",),
    Phase.SOFT: ("drain",),
    Phase.COLD: ("drain", "cut"),
    Phase.HARD: ("drain",),
}
