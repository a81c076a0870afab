"""`qworker purge`: delete what waits on queues, after asking."""

from __future__ import annotations

import click

from .common import Target, chosen_queues, is_confirmed
from .common import command as make_command
from .options import names


def _purge(target: Target, queues: tuple[str, ...], exclude_queues: tuple[str, ...], force: bool) -> int:
    app = target.app()
    if target.has_app:
        app.load_includes()
    chosen = chosen_queues(app, queues, exclude_queues)
    with target.broker(app) as broker:
        waiting = sum(broker.depths(chosen).values())
        question = f"Delete {waiting} waiting messages from {', '.join(chosen)} for good?"
        if not force and not is_confirmed(question):
            target.remark("nothing was deleted; -f deletes without asking")
            return 1
        deleted = broker.purge(chosen)
    click.echo(f"deleted {deleted} messages from {', '.join(chosen)}")
    return 0


command = make_command(
    "purge",
    [
        click.Option(
            ["-Q", "--queues"], metavar="A,B", callback=names, help="These queues. Default: the application's."
        ),
        click.Option(["-X", "--exclude-queues"], metavar="A,B", callback=names, help="Not these."),
        click.Option(["-f", "--force"], is_flag=True, help="Do not ask."),
    ],
    _purge,
    help="Delete the messages that wait on the queues; neither delayed ones nor those in flight.",
)
