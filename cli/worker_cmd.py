"""`qworker worker`, which is also `qworker` alone: from parsed options to a running worker. Called by `root`."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from typing import Any

import click

from ..core import log_events, logs
from ..core.errors import ConfigError
from ..core.log_sinks import file_of, fill
from ..daemon import Wish, settled
from ..monitor import endpoint
from ..worker import Image, WorkerOptions, configure_logs, node_name, run_worker, systemd_herald
from .options import ineffective
from .variables import unknown_variables

logger = logging.getLogger("qworker.cli")


def start(ctx: click.Context) -> int:
    """Run the worker; returns its exit code."""
    options = _options(ctx.params, ctx)
    with settled(_wish(ctx.params, options)) as caller:
        options = _with_logs(options, ctx.obj)
        for name in ineffective(ctx):
            _say_without_effect(name)
        _warn_of_variables(ctx)
        node = node_name(options.nodename)
        served = endpoint(node, ctx.params["http"], ctx.params["http_token"])
        os.environ.pop("QWORKER_HTTP_TOKEN", None)  # tasks need it not, and show their environment to others
        companions = [companion for companion in (systemd_herald(), caller, served) if companion is not None]
        return run_worker(options, companions, ctx.obj)


def _options(given: dict[str, Any], ctx: click.Context) -> WorkerOptions:
    if not given["app"]:
        raise click.UsageError("no application; name its module with -A, for example: qworker -A shop", ctx)
    return WorkerOptions(
        app=given["app"],
        broker=given["broker"],
        result_backend=given["result_backend"],
        # Absolute: it is looked at again by processes that are in it already.
        workdir=os.path.abspath(os.path.join(_folder(ctx), given["workdir"])) if given["workdir"] else None,
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
        logfile=_filled(given["logfile"], given["hostname"], "--logfile"),
        colour=False if given["no_color"] else None,
        quiet=given["quiet"],
        purge=given["purge"],
        create_missing_queues=given["create_missing_queues"],
        burst=given["burst"],
    )


def _with_logs(options: WorkerOptions, image: Image | None) -> WorkerOptions:
    """The options with logs as they can be had. Raises ConfigError, but not in an image that has replaced another.

    That one is no new start, which somebody looks at: it writes where its process wrote before.
    """
    try:
        configure_logs(options)
    except ConfigError as error:
        if image is None or not image.legacy.replaced_at:
            raise
        options = replace(options, logfile=None)
        configure_logs(options)
        text = f"{error}: lines go to standard error"
        logs.event(logger, logging.WARNING, log_events.LOG_NOT_REOPENED, text=text)
    return options


def _folder(ctx: click.Context) -> str:
    """Where the command was given. After an exec as another user, this process may be elsewhere."""
    return ctx.obj.folder if isinstance(ctx.obj, Image) else ""


def _wish(given: dict[str, Any], options: WorkerOptions) -> Wish:
    pidfile = _filled(given["pidfile"], given["hostname"], "--pidfile")
    return Wish(
        workdir=options.workdir,
        umask=given["umask"],
        detach=given["detach"],
        pidfile=file_of(pidfile, 0) if pidfile else None,
        logfile=file_of(options.logfile, 0) if options.logfile else None,
        uid=given["uid"],
        gid=given["gid"],
        is_quiet=given["quiet"],
    )


def _filled(path: str | None, hostname: str | None, option: str) -> str | None:
    """A file's name with the node's names in it. Raises UsageError for a letter that means nothing."""
    if not path:
        return None
    node = node_name(hostname)
    name, _, host = node.partition("@")
    words = {"n": name, "h": host, "d": host.partition(".")[2], "p": node}
    for letter in re.findall("%(.)", path):
        if letter not in {*words, *"iI%"}:
            raise click.UsageError(f"{option} {path}: %{letter} means nothing; there are %n, %h, %d, %p, %i, %I and %%")
    return fill(path, {letter: word.replace("/", "_").replace("%", "%%") for letter, word in words.items()})


def _say_without_effect(name: str) -> None:
    text = f"{name} means nothing to this worker"
    logs.event(logger, logging.DEBUG, log_events.OPTION_WITHOUT_EFFECT, text=text, option=name)


def _warn_of_variables(ctx: click.Context) -> None:
    assert isinstance(ctx.command, click.Group)
    options = [param.name or "" for param in ctx.command.params]
    for name, near in unknown_variables(options, ctx.command.list_commands(ctx)).items():
        hint = f"; did you mean {near}?" if near else ""
        text = f"the variable {name} is none of the worker's options and does nothing{hint}"
        logs.event(logger, logging.WARNING, log_events.VARIABLE_UNKNOWN, text=text, variable=name)
