"""The tables of signals.md, made from the worker's own transition table and exit codes."""

from __future__ import annotations

import inspect
import re

from qworker.worker import exitcodes
from qworker.worker.exitcodes import ExitCode
from qworker.worker.phases import SIGNAL_EVENTS, Phase, next_phase

from .tables import table


def phases_table() -> str:
    """What each signal makes of each phase; an empty cell: it changes nothing."""
    rows = [(phase.value, *(_next(phase, number) for number in SIGNAL_EVENTS)) for phase in Phase]
    return table(("phase", *(number.name.removeprefix("SIG") for number in SIGNAL_EVENTS)), rows)


def exit_codes() -> str:
    """Every exit code with what its line in the code says."""
    said = dict(re.findall(r"^    (\w+) = \d+  # (.+)$", inspect.getsource(exitcodes), re.MULTILINE))
    return table(("code", "meaning"), [(str(int(code)), said[code.name]) for code in ExitCode])


def _next(phase: Phase, number: int) -> str:
    after = next_phase(phase, SIGNAL_EVENTS[number])
    return "" if after is phase else f"→ {after.value}"
