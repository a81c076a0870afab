"""`qworker dead list|show|requeue|purge`: the messages that cannot or may no longer run, and what becomes of them.

A letter is named by its task's id, or by its token when the id is missing or not the only one. What the table cut is
understood as well.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from .common import Target, is_confirmed, table
from .common import command as make_command
from .options import names

if TYPE_CHECKING:
    from ..transports import DeadLetter, Transport

_MOST: Final = 1_000_000
#: A UUID has 36 characters.
_WIDEST: Final = 40
_COLUMNS: Final = ("queue", "id", "task", "reason", "crashes", "time")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class _DeadCommand(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which there are."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise click.UsageError(f"no such command 'dead {name}'; {hint}", ctx)
        return super().resolve_command(ctx, args)


class _Row(NamedTuple):
    letter: DeadLetter
    facts: dict[str, Any]

    def is_named(self, name: str) -> bool:
        """Whether `name` is the id or the token."""
        return name in (self.facts["id"], self.letter.token)

    def cells(self) -> list[object]:
        """What the table shows; without an id, the token stands in its place."""
        cells = [self.facts[key] for key in _COLUMNS]
        cells[1] = cells[1] or self.letter.token
        return ["?" if cell is None else _cut(cell) if isinstance(cell, str) else cell for cell in cells]


def _choose(ctx: click.Context) -> None:
    """Without a command, say which there are."""
    if ctx.invoked_subcommand is None:
        assert isinstance(ctx.command, click.Group)
        raise click.UsageError(f"which one: {', '.join(ctx.command.list_commands(ctx))}?", ctx)


def _list(target: Target, queues: Sequence[str], limit: int, as_json: bool) -> None:
    with target.broker(target.app()) as broker:
        rows = _rows(broker, queues, most=_MOST if queues else limit)[:limit]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row.facts, ensure_ascii=False))
    elif rows or not target.is_quiet:
        click.echo(table(_COLUMNS, [row.cells() for row in rows]) if rows else "no dead letters")


def _show(target: Target, wanted: str) -> None:
    with target.broker(target.app()) as broker:
        row = _named(wanted, _rows(broker))[0]
    click.echo(_description(row))


def _requeue(target: Target, wanted: Sequence[str], queues: Sequence[str], everything: bool, force: bool) -> int:
    _demand(bool(wanted), everything or bool(queues), everything, "IDs, --all or -Q")
    with target.broker(target.app()) as broker:
        chosen = _chosen(wanted, _rows(broker, queues))
        if not wanted and chosen and not force and not is_confirmed(f"Put {_count(chosen)} back on their queues?"):
            target.remark("nothing was requeued; -f requeues without asking")
            return 1
        done = broker.requeue_dead([row.letter.token for row in chosen])
    return _report(target, "requeued", done, chosen)


def _purge(
    target: Target,
    wanted: Sequence[str],
    queues: Sequence[str],
    everything: bool,
    older_than: float | None,
    force: bool,
) -> int:
    _demand(bool(wanted), everything or bool(queues) or older_than is not None, everything, "IDs, --all, --older-than")
    with target.broker(target.app()) as broker:
        rows = _rows(broker, queues)
        if older_than is not None:
            rows = [row for row in rows if row.letter.died_at < time.time() - older_than]
        chosen = _chosen(wanted, rows)
        if not wanted and chosen and not force and not is_confirmed(f"Delete {_count(chosen)} for good?"):
            target.remark("nothing was deleted; -f deletes without asking")
            return 1
        done = broker.purge_dead([row.letter.token for row in chosen])
    return _report(target, "deleted", done, chosen)


def _demand(by_name: bool, by_rule: bool, everything: bool, choices: str) -> None:
    """Names or a rule; `--all` with names would leave open which was meant."""
    if not by_name and not by_rule:
        raise click.UsageError(f"which ones? Give {choices}")
    if by_name and everything:
        raise click.UsageError("IDs or --all, not both")


def _rows(broker: Transport, queues: Sequence[str] = (), *, most: int = _MOST) -> list[_Row]:
    """The dead letters of these queues (of all, when none is named), newest first."""
    letters = broker.dead_letters(limit=most)
    return [_Row(letter, _facts(letter)) for letter in letters if not queues or letter.queue in queues]


def _chosen(wanted: Sequence[str], rows: Sequence[_Row]) -> list[_Row]:
    """What the names name, or all; each once, the oldest first, so that they run in that order."""
    found = [row for name in wanted for row in _named(name, rows)] if wanted else rows
    tokens = {row.letter.token for row in found}
    return [row for row in reversed(rows) if row.letter.token in tokens]


def _named(name: str, rows: Sequence[_Row]) -> list[_Row]:
    """The letters with this id or token. A cut id must fit one letter only."""
    found = [row for row in rows if row.is_named(name)]
    if found:
        return found
    found = [row for row in rows if name == row.cells()[1]]
    if len(found) == 1:
        return found
    if found:
        raise click.ClickException(f"{name!r} fits {_count(found)}; 'qworker dead list --json' shows the whole ids")
    raise click.ClickException(f"no dead letter {name!r}; 'qworker dead list' shows what there is")


def _report(target: Target, verb: str, done: int, chosen: Sequence[_Row]) -> int:
    click.echo(f"{verb} {done} dead letter{'' if done == 1 else 's'}")
    left = len(chosen) - done
    if left:
        target.remark(f"{left} more could not be {verb}: gone meanwhile, or their queue takes none")
    return 1 if left else 0


def _count(rows: Sequence[_Row]) -> str:
    queues = ", ".join(sorted({_cut(row.letter.queue) for row in rows}))
    return f"{len(rows)} dead letter{'' if len(rows) == 1 else 's'} of {queues}"


def _facts(letter: DeadLetter) -> dict[str, Any]:
    from ..tasks import identify

    who = identify(letter.raw)
    when = datetime.fromtimestamp(letter.died_at, timezone.utc).isoformat(timespec="seconds")
    crashes = letter.details.get("crashes", letter.crashes)  # the store counts those before the last one
    values = (letter.queue, who.task_id, who.task, letter.reason, crashes, when)
    return {**dict(zip(_COLUMNS, values, strict=True)), "token": letter.token}


def _visible(text: str) -> str:
    """One line, whatever a stranger put into it."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def _cut(text: str) -> str:
    """Short enough for a column."""
    text = _visible(text)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _description(row: _Row) -> str:
    """Everything known: the row, the details, the headers; texts of several lines last."""
    raw = row.letter.raw
    facts = {**row.facts, **row.letter.details, "bytes": len(raw)}
    long = {name: facts.pop(name) for name in list(facts) if isinstance(facts[name], str) and "\n" in facts[name]}
    lines = [
        f"{name}: {_visible(value) if isinstance(value, str) else json.dumps(value)}" for name, value in facts.items()
    ]
    lines.append(f"headers: {_headers(raw)}")
    lines += [f"{name}:\n{value.rstrip()}" for name, value in long.items()]
    return "\n".join(lines)


def _headers(raw: bytes) -> str:
    """As JSON, with what a terminal would obey or cannot show escaped."""
    try:
        text = json.dumps(json.loads(raw).get("headers"), ensure_ascii=False)
    except (ValueError, AttributeError, RecursionError):
        return "null"  # whatever it is, it is no envelope: that is why it is here
    return text if text.isprintable() else json.dumps(json.loads(text))


def _age(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    """Seconds, from a number with a unit."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text.strip())
    if not found:
        raise click.BadParameter(f"{text!r} is no age; give a number and s, m, h, d or w, for example 7d", ctx, param)
    return int(found[1]) * _UNITS[found[2] or "s"]


def _group(*commands: tuple[str, list[click.Parameter], Callable[..., Any], str]) -> click.Group:
    group = _DeadCommand(
        "dead",
        callback=click.pass_context(_choose),
        invoke_without_command=True,
        subcommand_metavar="COMMAND [ARGS]...",
        help="Look into the dead-letter store, put messages back, or delete them.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, params, callback, text in commands:
        group.add_command(make_command(name, params, callback, help=text))
    return group


def _of_queues() -> click.Option:
    return click.Option(["-Q", "--queues"], metavar="A,B", callback=names, help="Those of these queues only.")


def _some(verb: str) -> list[click.Parameter]:
    return [
        click.Argument(["wanted"], nargs=-1, metavar="[ID]..."),
        _of_queues(),
        click.Option(["--all", "everything"], is_flag=True, help=f"{verb} all of them."),
        click.Option(["-f", "--force"], is_flag=True, help="Do not ask."),
    ]


command = _group(
    (
        "list",
        [
            _of_queues(),
            click.Option(
                ["--limit"], type=click.IntRange(1), default=100, metavar="N", help="At most this many (100)."
            ),
            click.Option(["--json", "as_json"], is_flag=True, help="One JSON object a line."),
        ],
        _list,
        "One line a message, the newest first.",
    ),
    ("show", [click.Argument(["wanted"], metavar="ID")], _show, "All that is known of the message with this task id."),
    (
        "requeue",
        _some("Requeue"),
        _requeue,
        "Put messages back at the end of the queues they came from, unchanged; their crashes count from 0 again.",
    ),
    (
        "purge",
        [
            *_some("Delete"),
            click.Option(["--older-than"], metavar="AGE", callback=_age, help="Those that died before: 90s, 12h, 7d."),
        ],
        _purge,
        "Delete messages for good.",
    ),
)
