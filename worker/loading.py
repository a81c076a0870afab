"""What the spawner does first: import the application, apply the command line, build what every child inherits.

Called by `pool.spawner` in the spawner process; the options are plain data, because a later spawner is started by exec.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from ..core import log_events, logs, secrets
from ..core.errors import ConfigError
from ..pool import Runtime
from ..tasks import App, Hooks, TaskExecutor, find_app, preload_tracing
from ..transports import preload
from .logging_setup import configure_logs, settle_logs
from .options import WorkerOptions

logger = logging.getLogger("qworker.worker")


def options_dict(options: WorkerOptions, node: str) -> dict[str, Any]:
    """The options as plain data for `load`."""
    return asdict(options) | {"node": node}


def load(data: dict[str, Any]) -> Runtime:
    """Import the application and build the runtime. Raises AppImportError or ConfigError."""
    node = data.pop("node")
    options = WorkerOptions(**data)
    configure_logs(options, root=False)
    logs.set_process_name("Spawner")
    app = find_app(options.app, options.workdir)
    _apply(app, options)
    secrets.learn({name: app.conf[name] for name in app.conf})
    app.set_default()
    app.load_includes(options.include)
    app.conf.freeze()
    settle_logs(app, options)
    if threading.active_count() > 1:
        logs.say(
            logger,
            logging.WARNING,
            log_events.APP_HAS_THREADS,
            "the application has started {threads} threads while it was imported; children are forked "
            "without them, and a lock that one of them holds at that moment stays locked: start threads in "
            "the tasks",
            threads=threading.active_count() - 1,
        )
    executor = TaskExecutor(app, node)
    has_memory_limit = bool(app.conf.worker_max_memory_per_child or app.conf.worker_max_memory_hard)
    return Runtime(
        executor,
        _describe(app, options),
        _starter(executor),
        stop=executor.stop,
        weighs_children=has_memory_limit,
        preload=partial(_preload, app),
    )


def _preload(app: App) -> None:
    """What producers and spans need from libraries that are slow to import: children share it."""
    preload(app.conf.broker_url)
    preload_tracing(app)


def _apply(app: App, options: WorkerOptions) -> None:
    """The command line comes last and wins."""
    if options.config:
        app.config_from_object(options.config)
    chosen: dict[str, Any] = {"broker_url": options.broker, "result_backend": options.result_backend}
    chosen["worker_prefetch_multiplier"] = options.prefetch_multiplier
    chosen["worker_concurrency"] = options.concurrency
    chosen["worker_max_tasks_per_child"] = options.max_tasks_per_child
    chosen["worker_recycle_jitter"] = options.recycle_jitter
    chosen["worker_max_memory_per_child"] = options.max_memory_per_child
    chosen["worker_max_memory_hard"] = options.max_memory_hard
    chosen["task_create_missing_queues"] = options.create_missing_queues or None
    chosen["task_time_limit"] = options.time_limit
    chosen["task_soft_time_limit"] = options.soft_time_limit
    chosen["worker_soft_shutdown_timeout"] = options.soft_shutdown_timeout
    changes = {name: value for name, value in chosen.items() if value is not None}
    app.conf.update(changes)


def _describe(app: App, options: WorkerOptions) -> dict[str, Any]:
    """What the master has to know; plain JSON data."""
    conf = app.conf
    final = [name for name, task in app.tasks.items() if task.reject_on_worker_lost is False]
    is_fixed = not conf.is_default("worker_prefetch_multiplier")
    return {
        "app": app.main or options.app,
        "conf": conf.as_plain_dict(),
        "tasks": sorted(app.tasks),
        "final_tasks": final,
        "queues": _queues(app, options),
        "longest_limit": max((task.time_limit or 0 for task in app.tasks.values()), default=0),
        "fixed_prefetch": is_fixed,
    }


def _queues(app: App, options: WorkerOptions) -> list[str]:
    """`-Q`, else `task_queues`, else the default queue and what the tasks themselves name; minus `-X`."""
    names = list(options.queues) or app.queue_names()
    queues = [name for name in dict.fromkeys(names) if name not in options.exclude_queues]
    if not queues:
        raise ConfigError("no queue is left to consume from: -X excludes all of them")
    return queues


def _starter(executor: TaskExecutor) -> Callable[[int, Hooks], None]:
    def start(slot: int, hooks: Hooks) -> None:
        logs.become(f"Child-{slot + 1}", slot + 1)
        executor.start(hooks)

    return start


def working_directory(options: WorkerOptions) -> None:
    """Change to `--workdir`. Raises ConfigError."""
    if not options.workdir:
        return
    try:
        os.chdir(options.workdir)
    except OSError as error:
        raise ConfigError(f"--workdir {options.workdir}: {error.strerror}") from None
    sys.path.insert(0, os.getcwd())
