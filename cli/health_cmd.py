"""`qworker health` as a command of the command line; what it does is in `health.py`."""

from __future__ import annotations

import click

from .common import Target
from .common import command as make_command
from .health import LIVE, READY, check


def place_options() -> list[click.Option]:
    """Which worker is meant; read from the environment that the worker itself reads."""
    return [
        click.Option(
            ["-n", "--hostname"], metavar="NAME", envvar="QWORKER_HOSTNAME", help="Its node name, if several run here."
        ),
        click.Option(
            ["--http"],
            metavar="HOST:PORT|unix:PATH",
            envvar="QWORKER_HTTP",
            help="Where it listens (its own --http).",
        ),
        click.Option(
            ["--http-token"], metavar="SECRET", envvar="QWORKER_HTTP_TOKEN", help="What it wants to see there."
        ),
    ]


def _health(target: Target, hostname: str | None, http: str | None, http_token: str | None, ready: bool) -> int:
    return check(READY if ready else LIVE, hostname, http, http_token or "", is_quiet=target.is_quiet)


command = make_command(
    "health",
    [
        click.Option(["--ready"], is_flag=True, help="Whether it takes messages, not only whether it lives."),
        *place_options(),
    ],
    _health,
    help="Exit 0 if the worker on this host lives, 1 if not. Neither broker nor application are asked.",
)
