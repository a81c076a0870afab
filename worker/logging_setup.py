"""How master, spawner and children log: by the command line, and as the application wants. Called by `run`, `loading`.

Before the application is imported its wishes are not known: then the command line alone counts. The master never
imports it, so its lines always go where the command line says.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..core import logs, redirect
from ..core.settings_table import TABLE
from ..tasks import App
from .options import WorkerOptions

_PATTERNS = ("worker_log_format", "worker_task_log_format", "worker_log_datefmt", "worker_task_log_datefmt")


def configure_logs(
    options: WorkerOptions, conf: Mapping[str, Any] | None = None, *, root: bool = True, hijack: bool = False
) -> None:
    """Log as the command line says; with `conf`, in the application's formats. Raises ConfigError.

    Not on the `root` logger while the application is imported: its `logging.basicConfig` would change nothing.
    """
    colour = options.colour
    if colour is None and conf is not None and not options.logfile:
        colour = conf["worker_log_color"]
    logs.configure(
        options.loglevel,
        format=options.log_format,
        colour=colour,
        logfile=options.logfile,
        patterns=_patterns(conf) if conf is not None else None,
        root=root,
        hijack=hijack,
    )


def settle_logs(app: App, options: WorkerOptions) -> None:
    """In the spawner, after the import: children inherit it. Raises ConfigError.

    A function that the application has named with `App.setup_logging` sets up everything by itself. Otherwise root
    handlers that the application has installed stay, and ours serve what these do not: `worker_hijack_root_logger`
    takes theirs away. `print` becomes lines of the log (`worker_redirect_stdouts`).
    """
    conf = app.conf
    if app.logging_hook is not None:
        level = logs.parse_level(options.loglevel)
        logs.hand_over(level)
        app.logging_hook(
            loglevel=level, logfile=options.logfile, format=conf.worker_log_format, colorize=conf.worker_log_color
        )
    else:
        configure_logs(options, {name: conf[name] for name in conf}, hijack=conf.worker_hijack_root_logger)
    if app.logging_hook is None and conf.worker_redirect_stdouts:
        redirect.redirect(logs.parse_level(conf.worker_redirect_stdouts_level))
        logging.captureWarnings(True)
    if any(not isinstance(handler, logs.LineHandler) for handler in logging.getLogger().handlers):
        logs.name_tasks_in_records()


def _patterns(conf: Mapping[str, Any]) -> logs.Patterns | None:
    """The application's formats for text, or None where all are the defaults, which our own way of writing is."""
    if all(conf[name] == TABLE[name].default for name in _PATTERNS):
        return None
    line, of_task, time, time_of_task = (conf[name] for name in _PATTERNS)
    return logs.Patterns(line, of_task, time, time_of_task)
