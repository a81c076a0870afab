"""What the command line asks of a worker: plain data, made by `cli`, carried to the spawner as a plain dictionary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The worker's options. None means: what the application's settings say, else the default.

    `nodename` is a template (`%h` full host name, `%n` name part, `%d` domain). `prefetch_multiplier` None adapts the
    window to run times.
    """

    app: str
    broker: str | None = None
    result_backend: str | None = None
    workdir: str | None = None
    config: str | None = None
    nodename: str | None = None
    queues: tuple[str, ...] = ()
    exclude_queues: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    concurrency: int | None = None
    prefetch_multiplier: int | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    soft_shutdown_timeout: float | None = None
    autoscale: tuple[int, int] | None = None  # least and most children
    max_tasks_per_child: int | None = None
    recycle_jitter: int | None = None
    max_memory_per_child: int | None = None
    max_memory_hard: int | None = None
    optimization: Literal["default", "fair"] = "default"
    loglevel: str = "INFO"
    log_format: Literal["text", "json", "logfmt"] = "text"
    logfile: str | None = None
    colour: bool | None = None
    quiet: bool = False
    purge: bool = False
    create_missing_queues: bool = False
    burst: bool = False
