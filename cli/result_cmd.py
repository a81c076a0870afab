"""`qworker result ID`: what became of a task."""

from __future__ import annotations

import json
from typing import Any

import click

from .common import Target
from .common import command as make_command


def as_text(value: Any) -> str:
    """A result as JSON, where JSON has a word for it."""
    return json.dumps(value, default=repr, ensure_ascii=False)


def _result(target: Target, task_id: str, wait: bool, timeout: float | None, traceback: bool) -> int:
    result = target.app().AsyncResult(task_id)
    if wait or timeout is not None:
        result.get(timeout=timeout, propagate=False)
    status, value = result.status, result.result
    click.echo(f"status: {status}")
    if isinstance(value, Exception):
        click.echo(f"error: {type(value).__name__}: {value}")
    elif status != "PENDING":
        click.echo(f"result: {as_text(value)}")
    if traceback and result.traceback:
        click.echo(result.traceback.rstrip("\n"))
    return 1 if status in ("FAILURE", "REVOKED") else 0


command = make_command(
    "result",
    [
        click.Argument(["task_id"], metavar="ID"),
        click.Option(["--wait"], is_flag=True, help="Wait until the task is done."),
        click.Option(["--timeout"], type=float, metavar="SECONDS", help="Wait no longer than this; then exit 1."),
        click.Option(["--traceback"], is_flag=True, help="Show the worker's traceback."),
    ],
    _result,
    help="Show status and result of the task ID. Exit 1 when it failed or was revoked.",
)
