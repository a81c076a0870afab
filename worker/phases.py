"""Where the worker is in its life: one enum, one pure transition table. Nobody else assigns a phase.

The table stands in ARCHITECTURE.md as well; `tests/worker/test_phases.py` compares the two.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from enum import Enum
from typing import Final

logger = logging.getLogger("qworker.worker")


class Phase(Enum):
    """The phases, in order of life."""

    STARTING = "starting"
    RUNNING = "running"
    QUIET = "quiet"
    WARM = "warm"
    SOFT = "soft"
    COLD = "cold"
    HARD = "hard"
    STOPPED = "stopped"


class Event(Enum):
    """What moves a phase. Signals are translated into these by `SIGNAL_EVENTS`."""

    READY = "ready"
    TERM = "term"
    QUIT = "quit"
    INT = "int"
    QUIET = "quiet"
    RESUME = "resume"
    DEADLINE = "deadline"
    DRAINED = "drained"
    FAILED = "failed"


_P, _E = Phase, Event
TRANSITIONS: Final[dict[tuple[Phase, Event], Phase]] = {
    (_P.STARTING, _E.READY): _P.RUNNING,
    (_P.STARTING, _E.TERM): _P.WARM,
    (_P.STARTING, _E.INT): _P.WARM,
    (_P.STARTING, _E.QUIT): _P.SOFT,
    (_P.STARTING, _E.FAILED): _P.HARD,
    (_P.RUNNING, _E.QUIET): _P.QUIET,
    (_P.RUNNING, _E.TERM): _P.WARM,
    (_P.RUNNING, _E.INT): _P.WARM,
    (_P.RUNNING, _E.QUIT): _P.SOFT,
    (_P.RUNNING, _E.FAILED): _P.HARD,
    (_P.QUIET, _E.RESUME): _P.RUNNING,
    (_P.QUIET, _E.TERM): _P.WARM,
    (_P.QUIET, _E.INT): _P.WARM,
    (_P.QUIET, _E.QUIT): _P.SOFT,
    (_P.QUIET, _E.FAILED): _P.HARD,
    (_P.WARM, _E.INT): _P.SOFT,
    (_P.WARM, _E.QUIT): _P.SOFT,
    (_P.WARM, _E.FAILED): _P.HARD,
    (_P.WARM, _E.DRAINED): _P.STOPPED,
    (_P.SOFT, _E.INT): _P.COLD,
    (_P.SOFT, _E.QUIT): _P.COLD,
    (_P.SOFT, _E.DEADLINE): _P.COLD,
    (_P.SOFT, _E.FAILED): _P.HARD,
    (_P.SOFT, _E.DRAINED): _P.STOPPED,
    (_P.COLD, _E.INT): _P.HARD,
    (_P.COLD, _E.QUIT): _P.HARD,
    (_P.COLD, _E.DEADLINE): _P.HARD,
    (_P.COLD, _E.FAILED): _P.HARD,
    (_P.COLD, _E.DRAINED): _P.STOPPED,
    (_P.HARD, _E.DEADLINE): _P.STOPPED,
    (_P.HARD, _E.DRAINED): _P.STOPPED,
}


STOPPING: Final = frozenset({Phase.WARM, Phase.SOFT, Phase.COLD, Phase.HARD, Phase.STOPPED})

SIGNAL_EVENTS: Final = {
    signal.SIGTERM: Event.TERM,
    signal.SIGINT: Event.INT,
    signal.SIGQUIT: Event.QUIT,
    signal.SIGTSTP: Event.QUIET,
    signal.SIGCONT: Event.RESUME,
}


def next_phase(phase: Phase, event: Event) -> Phase:
    """Return the phase after `event`; a pair that is not in the table changes nothing."""
    return TRANSITIONS.get((phase, event), phase)


def remapped(signals: Mapping[signal.Signals, Event], wish: str | None) -> dict[signal.Signals, Event]:
    """Return `signals` with TERM meaning what QUIT means if the environment's REMAP_SIGTERM says `SIGQUIT`."""
    events = dict(signals)
    if wish == "SIGQUIT":
        events[signal.SIGTERM] = events[signal.SIGQUIT]
    elif wish:
        from ..core import log_events, logs  # here, because every command loads this file

        logs.say(
            logger,
            logging.WARNING,
            log_events.SIGNAL_NOT_REMAPPED,
            "REMAP_SIGTERM={value} is not known and has no effect; the one value is SIGQUIT",
            value=wish,
        )
    return events
