"""The worker: master, phases, consumer, ledger. The command line starts it with `run_worker`."""

import os
from collections.abc import Sequence

from ..core.companion import Companion
from .exitcodes import ExitCode
from .headroom import overcommitment
from .image import Image
from .names import node_name
from .options import WorkerOptions
from .phases import TRANSITIONS, Event, Phase, next_phase

__all__ = [
    "TRANSITIONS",
    "Event",
    "ExitCode",
    "Image",
    "Phase",
    "WorkerOptions",
    "configure_logs",
    "next_phase",
    "node_name",
    "overcommitment",
    "run_worker",
    "systemd_herald",
]


def run_worker(options: WorkerOptions, companions: Sequence[Companion] = (), image: Image | None = None) -> int:
    """Run a worker until it is told to stop; returns the exit code (see `worker.run.run_worker`)."""
    from .run import run_worker as run  # here, so that parsing a command line does not load the pool

    return run(options, companions, image)


def configure_logs(options: WorkerOptions) -> None:
    """Log as the command line says. Raises ConfigError."""
    from ..core import logs

    logs.configure(options.loglevel, format=options.log_format, colour=options.colour, logfile=options.logfile)


def systemd_herald() -> Companion | None:
    """The companion that tells systemd how the worker is; None when systemd has not asked for it.

    Takes systemd's variables out of the environment: call it before any process is started.
    """
    if "NOTIFY_SOCKET" not in os.environ and "WATCHDOG_USEC" not in os.environ:
        return None
    from ..systemd import take
    from .herald import Herald

    notifier = take()
    return None if notifier is None else Herald(notifier)
