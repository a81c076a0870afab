"""What has become of each option of Celery's worker, for celery.md. A test compares the list with Celery's own."""

from __future__ import annotations

from typing import Final

import click

from qworker.cli.options import _LATER, _NO_EFFECT, SectionOption
from qworker.cli.root import root

from .tables import table

#: Celery's spelling of each, the long name that people use.
OPTIONS: Final = (
    *("--app", "--broker", "--result-backend", "--loader", "--config", "--workdir", "--no-color", "--quiet"),
    *("--version", "--skip-checks", "--hostname", "--detach", "--statedb", "--loglevel", "--optimization"),
    *("--prefetch-multiplier", "--disable-prefetch", "--concurrency", "--pool", "--task-events", "--events"),
    *("--time-limit", "--soft-time-limit", "--max-tasks-per-child", "--pool-start-method", "--max-memory-per-child"),
    *("--purge", "--discard", "--queues", "--exclude-queues", "--include", "--without-gossip", "--without-mingle"),
    *("--without-heartbeat", "--heartbeat-interval", "--autoscale", "--beat", "--schedule-filename", "--schedule"),
    *("--scheduler", "--logfile", "--pidfile", "--uid", "--gid", "--umask", "--executable"),
)

_REMARKS: Final = {
    "--app": "a `qworker.App`; a Celery application is refused with exit code 3",
    "--beat": "keep `celery beat` as a process of its own: it only sends",
    "--disable-prefetch": "`-O fair`: a busy child is given nothing more",
    "--events": "see `--task-events`",
    "--loader": "leave it away",
    "--max-memory-per-child": "counts a child's own memory now, not its peak",
    "--pool": "`prefork` only; the others are refused",
    "--pool-start-method": "leave it away: children are forked from a process without threads",
    "--prefetch-multiplier": "without it as many as run times ask for; 0 is refused: what is held is limited",
    "--schedule-filename": "see `--schedule`",
    "--skip-checks": "leave it away",
    "--task-events": "use metrics, or the log as JSON",
}


def fates() -> str:
    """One row for each option."""
    return table(("Celery's option", "here", "remark"), [(f"`{o}`", _fate(o), _REMARKS.get(o, "")) for o in OPTIONS])


def _fate(option: str) -> str:
    ours = next((param for param in root.params if option in param.opts), None)
    if ours is None:
        return "unknown: exit code 2"
    section = _section(ours)
    if section == _LATER:
        return "not in this version: exit code 2"
    return "accepted, without effect" if section == _NO_EFFECT else "the same"


def _section(param: click.Parameter) -> str:
    return param.section if isinstance(param, SectionOption) else ""
