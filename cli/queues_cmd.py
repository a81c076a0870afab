"""`qworker queues`: how many messages wait where."""

from __future__ import annotations

import json

import click

from .common import Target, chosen_queues, table
from .common import command as make_command
from .options import names


def _queues(target: Target, queues: tuple[str, ...], as_json: bool) -> None:
    app = target.app()
    if target.has_app:
        app.load_includes()
    with target.broker(app) as broker:
        depths = broker.depths(chosen_queues(app, queues))
    click.echo(json.dumps(depths, ensure_ascii=False) if as_json else table(("queue", "waiting"), list(depths.items())))


command = make_command(
    "queues",
    [
        click.Option(
            ["-Q", "--queues"], metavar="A,B", callback=names, help="These queues. Default: the application's."
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="One JSON object: queue → number."),
    ],
    _queues,
    help="Show how many messages wait on each queue; neither delayed ones nor those in flight count.",
)
