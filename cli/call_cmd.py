"""`qworker call NAME`: send one task, and with `--wait` show what became of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .common import Target
from .common import command as make_command
from .result_cmd import as_text

if TYPE_CHECKING:
    from ..tasks import App


def _call(target: Target, name: str, args: list[Any], kwargs: dict[str, Any], **options: Any) -> int:
    wait, timeout = options.pop("wait"), options.pop("timeout")
    app = target.app()
    if target.has_app:
        app.load_includes()
        _doubt(target, app, name)
    sent = app.send_task(name, args, kwargs, **{key: value for key, value in options.items() if value is not None})
    if not wait and timeout is None:
        click.echo(sent.id)
        return 0
    target.remark(f"sent {sent.id}, waiting for its result")
    return _show(sent, timeout)


def _doubt(target: Target, app: App, name: str) -> None:
    """The worker may know more tasks than the application here: the task is sent all the same."""
    if name in app.tasks:
        return
    from ..core.settings_values import nearest

    target.remark(f"the application has no task {name!r}{nearest(name, app.tasks)}; it is sent all the same")


def _show(sent: Any, timeout: float | None) -> int:
    value = sent.get(timeout=timeout, propagate=False)
    if sent.successful():
        click.echo(as_text(value))
        return 0
    click.echo(f"qworker: task {sent.id}: {sent.status}: {type(value).__name__}: {value}", err=True)
    return 1


def _json(kind: type, word: str) -> Any:
    def parse(ctx: click.Context, param: click.Parameter, text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not JSON: {error}", ctx, param) from None
        if not isinstance(value, kind):
            raise click.BadParameter(f"{text!r} is not {word}", ctx, param)
        return value

    return parse


def _moment(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    from ..tasks import parse_datetime

    try:
        return parse_datetime(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an ISO 8601 time such as 2026-11-21T10:00:00", ctx, param) from None


def _seconds_or_moment(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    try:
        return None if text is None else float(text)
    except ValueError:
        return _moment(ctx, param, text)


command = make_command(
    "call",
    [
        click.Argument(["name"]),
        click.Option(
            ["-a", "--args"],
            default="[]",
            metavar="JSON",
            callback=_json(list, "a list"),
            help="Positional arguments: '[7]'.",
        ),
        click.Option(
            ["-k", "--kwargs"],
            default="{}",
            metavar="JSON",
            callback=_json(dict, "an object"),
            help="Arguments by name: '{\"n\": 7}'.",
        ),
        click.Option(["-Q", "--queue"], metavar="NAME", help="Queue, instead of the task's own."),
        click.Option(["--countdown"], type=float, metavar="SECONDS", help="Run it this much later."),
        click.Option(["--eta"], metavar="TIME", callback=_moment, help="Run it at this time (ISO 8601) or later."),
        click.Option(
            ["--expires"], metavar="SECONDS|TIME", callback=_seconds_or_moment, help="Do not run it after this."
        ),
        click.Option(["--priority"], type=click.IntRange(0, 9), metavar="0-9", help="0 is served first."),
        click.Option(["--task-id"], metavar="ID", help="Its id, instead of a random one."),
        click.Option(["--wait"], is_flag=True, help="Wait for the result and show it; exit 1 when the task fails."),
        click.Option(["--timeout"], type=float, metavar="SECONDS", help="Wait no longer than this."),
    ],
    _call,
    help="Send the task NAME and show its id.",
)
