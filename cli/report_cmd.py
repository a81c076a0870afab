"""`qworker report`: what a bug report should contain, without secrets."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from ..core.cpus import cpu_bounds, usable_cpus
from ..core.errors import QWorkerError
from ..core.memory_limit import memory_limit, mib
from ..core.urls import redact
from .common import Target
from .common import command as make_command

if TYPE_CHECKING:
    from ..tasks import App

_PACKAGES: Final = ("billiard", "click", "hiredis", "psutil", "redis", "setproctitle", "celery", "kombu", "boto3")
_SECRETS: Final = ("password", "secret", "key", "token", "credential", "use_ssl")


def _report(target: Target) -> None:
    from .. import __version__

    rows = [
        ("qworker", __version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
        ("cpus", "; ".join(filter(None, (f"{usable_cpus()} usable of {os.cpu_count()}", cpu_bounds())))),
        ("memory", _memory()),
        ("packages", ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name)))),
        ("sqlite", _sqlite_version()),
    ]
    for name, value in rows:
        click.echo(f"{name}: {value}")
    if target.has_app:
        _report_app(target)


def _report_app(target: Target) -> None:
    app = target.app()
    app.load_includes()
    click.echo(f"app: {app.main}, {len(app.tasks)} tasks")
    for name in sorted(app.conf):
        if not app.conf.is_default(name):
            click.echo(f"setting {name}: {_shown(name, app.conf[name])}")
    _report_queues(target, app)


def _report_queues(target: Target, app: App) -> None:
    """The broker may be what the bug report is about: what is wrong with it is part of the report."""
    try:
        with target.broker(app) as broker:
            for name, waiting in broker.depths(app.queue_names()).items():
                click.echo(f"queue {name}: {waiting} waiting")
    except QWorkerError as error:
        click.echo(f"broker: {error}")


def _shown(name: str, value: Any) -> str:
    if any(word in name.lower() for word in _SECRETS):
        return "**"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(str(key), inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_shown(name, inner) for inner in value) + "]"
    return redact(value) if isinstance(value, str) and "://" in value else repr(value)


def _memory() -> str:
    allowed = memory_limit()
    return "no limit" if allowed is None else f"{mib(allowed)} (cgroup)"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _sqlite_version() -> str:
    import sqlite3

    return sqlite3.sqlite_version


command = make_command("report", [], _report, help="Show versions and platform; with -A also settings and queues.")
