"""`qworker dead list|show`: the messages that cannot or may no longer run, and why."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

import click

from .common import Target, table
from .common import command as make_command

if TYPE_CHECKING:
    from ..transports import DeadLetter

_MOST: Final = 1_000_000
_LATER: Final = ("requeue", "purge")


class _DeadCommand(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which there are."""
        name, known = args[0], self.list_commands(ctx)
        if name in _LATER:
            raise click.UsageError(f"'dead {name}' is not in this version", ctx)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise click.UsageError(f"no such command 'dead {name}'; {hint}", ctx)
        return super().resolve_command(ctx, args)


def _choose(ctx: click.Context) -> None:
    """Without a command, say which there are."""
    if ctx.invoked_subcommand is None:
        assert isinstance(ctx.command, click.Group)
        raise click.UsageError(f"which one: {', '.join(ctx.command.list_commands(ctx))}?", ctx)


def _list(target: Target, limit: int, as_json: bool) -> None:
    letters = [_row(letter) for letter in _letters(target, limit)]
    if as_json:
        for letter in letters:
            click.echo(json.dumps(letter, ensure_ascii=False))
        return
    rows = [[letter[key] if letter[key] is not None else "?" for key in _COLUMNS] for letter in letters]
    if rows or not target.is_quiet:
        click.echo(table(_COLUMNS, rows) if rows else "no dead letters")


def _show(target: Target, wanted: str) -> int:
    for letter in _letters(target, _MOST):
        row = _row(letter)
        if wanted in (row["id"], letter.token):
            click.echo(_description(letter, row))
            return 0
    raise click.ClickException(f"no dead letter {wanted!r}; 'qworker dead list' shows what there is")


def _letters(target: Target, limit: int) -> list[DeadLetter]:
    with target.broker(target.app()) as broker:
        return broker.dead_letters(limit=limit)


_COLUMNS: Final = ("queue", "id", "task", "reason", "crashes", "time")


def _row(letter: DeadLetter) -> dict[str, Any]:
    from ..tasks import identify

    who = identify(letter.raw)
    when = datetime.fromtimestamp(letter.died_at, timezone.utc).isoformat(timespec="seconds")
    values = (letter.queue, who.task_id, who.task, letter.reason, letter.crashes, when)
    return {**dict(zip(_COLUMNS, values, strict=True)), "token": letter.token}


def _description(letter: DeadLetter, row: dict[str, Any]) -> str:
    """Everything known: the row, the details, the headers; texts of several lines last."""
    facts = {**row, **letter.details, "bytes": len(letter.raw)}
    long = {name: facts.pop(name) for name in list(facts) if isinstance(facts[name], str) and "\n" in facts[name]}
    lines = [f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in facts.items()]
    lines.append("headers: " + json.dumps(_headers(letter.raw), ensure_ascii=False))
    lines += [f"{name}:\n{value.rstrip()}" for name, value in long.items()]
    return "\n".join(lines)


def _headers(raw: bytes) -> Any:
    try:
        return json.loads(raw).get("headers")
    except (ValueError, AttributeError, RecursionError):
        return None  # whatever it is, it is no envelope: that is why it is here


def _group(*commands: tuple[str, list[click.Parameter], Callable[..., Any], str]) -> click.Group:
    group = _DeadCommand(
        "dead",
        callback=click.pass_context(_choose),
        invoke_without_command=True,
        subcommand_metavar="COMMAND [ARGS]...",
        help="Look into the dead-letter store.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, params, callback, text in commands:
        group.add_command(make_command(name, params, callback, help=text))
    return group


command = _group(
    (
        "list",
        [
            click.Option(
                ["--limit"], type=click.IntRange(1), default=100, metavar="N", help="At most this many (100)."
            ),
            click.Option(["--json", "as_json"], is_flag=True, help="One JSON object a line."),
        ],
        _list,
        "One line a message, the newest first.",
    ),
    ("show", [click.Argument(["wanted"], metavar="ID")], _show, "All that is known of the message with this task id."),
)
