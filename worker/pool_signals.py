"""Signals that change the pool or ask what it does, and not the phase of the worker:

HUP     a new generation of children, with the application loaded anew (`worker/generations.py`);
TTIN    one child more;
TTOU    one child less;
USR1    the stacks of the master and of every child go to the log;
USR2    all processes open their log files anew.

Called by the master, in its main thread (`worker/master.py`). Signals that move the phase: `worker/phases.py`.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Final

from ..core import log_events, logs
from ..signals import own_stacks
from .generations import Generations
from .phases import STOPPING, Phase
from .works import Works

logger = logging.getLogger("qworker.worker")


def act_upon(number: signal.Signals, phase: Phase, generations: Generations, works: Works | None) -> None:
    """Do what this one of `POOL_SIGNALS` asks for, if the worker is in a phase in which that can be done.

    Log files are opened anew in every phase, stacks are shown from loading to the end. `works`: None before loading.
    """
    if number == signal.SIGUSR2:
        _reopen_logs(generations)
    elif works is None or (phase in STOPPING and number != signal.SIGUSR1):
        _say_ignored(number, phase)
    else:
        _ACTS[number](generations, works)


def _reopen_logs(generations: Generations) -> None:
    logs.reopen()
    for spawner in generations.all():
        spawner.reopen_logs()
    logs.say(logger, logging.INFO, log_events.LOGS_REOPENED, "log files are opened anew")


def _say_ignored(number: signal.Signals, phase: Phase) -> None:
    logs.say(
        logger,
        logging.INFO,
        log_events.SIGNAL_IGNORED,
        "{signal} has no effect now: the worker is {phase}",
        signal=number.name,
        phase=phase.value,
    )


def _reload(generations: Generations, works: Works) -> None:
    generations.reload()


def _grow(generations: Generations, works: Works) -> None:
    works.upkeep.grow(works.crew.size + 1)


def _shrink(generations: Generations, works: Works) -> None:
    works.upkeep.shrink()


def _dump_stacks(generations: Generations, works: Works) -> None:
    """The stacks of the master's threads and of every child, with what each child runs, go to the log."""
    logs.say(
        logger,
        logging.INFO,
        log_events.STACKS,
        "stacks of the master (pid {of}):\n{stacks}",
        of=os.getpid(),
        stacks=own_stacks(),
    )
    works.crew.dump_stacks()


_ACTS: Final[dict[signal.Signals, Callable[[Generations, Works], None]]] = {
    signal.SIGHUP: _reload,
    signal.SIGUSR1: _dump_stacks,
    signal.SIGTTIN: _grow,
    signal.SIGTTOU: _shrink,
}
#: What `act_upon` takes.
POOL_SIGNALS: Final = (*_ACTS, signal.SIGUSR2)
