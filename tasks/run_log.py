"""The log lines of a task's life, in Celery's shapes, with what the run has cost. Used by execute.py and run.py."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..core import logs
from .usage import meter

if TYPE_CHECKING:
    from .run import Run

logger = logging.getLogger("qworker.task")


def say(level: int, name: str, run: Run, text: str, **pairs: Any) -> None:
    """Log one event: `Task name[id] received`."""
    if logger.isEnabledFor(level):
        message = run.message
        line = f"Task {message.task}[{message.id}] {text}"
        logs.event(logger, level, name, text=line, task=message.task, id=message.id, **pairs)


def say_end(level: int, name: str, run: Run, text: str, details: str = "", **pairs: Any) -> None:
    """Log how a run has ended, and what it has used; in the text, only what is worth a look.

    `details` are further lines.
    """
    if not logger.isEnabledFor(level):
        return
    usage = meter.usage(run.started)
    pairs["cpu"] = round(usage.cpu_s, 6)
    pairs["peak_kib"] = usage.peak_kib
    if run.wait_s >= 0.0:
        pairs["wait"] = round(run.wait_s, 6)
    notable = []
    if usage.cpu_s >= 0.1:
        notable.append(f"cpu {usage.cpu_s:.2f}s")
    if run.wait_s >= 1.0:
        notable.append(f"waited {run.wait_s:.1f}s")
    if usage.peak_kib >= 1024:
        notable.append(f"memory +{usage.peak_kib // 1024} MiB")
    more = f" ({', '.join(notable)})" if notable else ""
    say(level, name, run, f"{text}{more}{details}", **pairs)


def seconds(value: float) -> str:
    """A run time as the lines show it."""
    return (
        f"{value:.2f}" if value >= 1 else f"{value:.4f}".rstrip("0").rstrip(".") if value >= 0.001 else f"{value:.6f}"
    )
