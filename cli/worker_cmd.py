"""`qworker worker`, which is also `qworker` alone: from parsed options to a running worker. Called by `root`."""

from __future__ import annotations

import logging
from typing import Any

import click

from ..core import logs
from ..worker import WorkerOptions, run_worker, systemd_herald
from .options import ineffective

logger = logging.getLogger("qworker.cli")


def start(ctx: click.Context) -> int:
    """Run the worker; returns its exit code."""
    options = _options(ctx.params, ctx)
    for name in ineffective(ctx):
        _say_without_effect(name, options)
    companions = [companion for companion in (systemd_herald(),) if companion is not None]
    return run_worker(options, companions, ctx.obj)


def _options(given: dict[str, Any], ctx: click.Context) -> WorkerOptions:
    if not given["app"]:
        raise click.UsageError("no application; name its module with -A, for example: qworker -A shop", ctx)
    return WorkerOptions(
        app=given["app"],
        broker=given["broker"],
        result_backend=given["result_backend"],
        workdir=given["workdir"],
        config=given["config"],
        nodename=given["hostname"],
        queues=given["queues"],
        exclude_queues=given["exclude_queues"],
        include=given["include"],
        concurrency=given["concurrency"],
        prefetch_multiplier=given["prefetch_multiplier"],
        time_limit=given["time_limit"],
        soft_time_limit=given["soft_time_limit"],
        soft_shutdown_timeout=given["soft_shutdown_timeout"],
        autoscale=given["autoscale"],
        max_tasks_per_child=given["max_tasks_per_child"],
        recycle_jitter=given["recycle_jitter"],
        max_memory_per_child=given["max_memory_per_child"],
        max_memory_hard=given["max_memory_hard"],
        optimization=given["optimization"],
        loglevel=given["loglevel"] or "INFO",
        log_format=given["log_format"],
        logfile=given["logfile"],
        colour=False if given["no_color"] else None,
        quiet=given["quiet"],
        purge=given["purge"],
        create_missing_queues=given["create_missing_queues"],
        burst=given["burst"],
    )


def _say_without_effect(name: str, options: WorkerOptions) -> None:
    logs.configure(options.loglevel, format=options.log_format, colour=options.colour, logfile=options.logfile)
    logs.event(logger, logging.DEBUG, "option_without_effect", text=f"{name} means nothing to this worker", option=name)
