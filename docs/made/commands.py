"""The tables of cli.md, made from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from qworker.cli.options import OTHER, SECTIONS, SHARED, SectionOption
from qworker.cli.root import root

from .tables import table

_PREFIX = "QWORKER"
_HEAD = ("option", "in the environment", "meaning")


def options() -> str:
    """Every option of the worker, in the sections of `--help`."""
    ctx = _context(root, "qworker", None)
    parts = []
    for section in SECTIONS:
        found = [param for param in root.params if _section(param) == section]
        if found:
            parts.append(f"### {section}\n\n{table(_HEAD, [_option(param, ctx) for param in found])}")
    return "\n\n".join(parts)


def commands() -> str:
    """Every command but the worker: usage, arguments, options."""
    return "\n\n".join(_described(command, ctx) for command, ctx in every_command())


def every_command() -> Iterator[tuple[click.Command, click.Context]]:
    """Every command but the worker, those of groups too."""
    top = _context(root, "qworker", None)
    for name in root.list_commands(top):
        command = root.get_command(top, name)
        if command is not None:
            yield from _with_parts(command, _context(command, name, top))


def _with_parts(command: click.Command, ctx: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    if not isinstance(command, click.Group):
        yield command, ctx
        return
    for name in command.list_commands(ctx):
        part = command.get_command(ctx, name)
        assert part is not None
        yield from _with_parts(part, _context(part, name, ctx))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    # What contexts have when the command line is parsed: the environment's names are made of theirs.
    prefix = None if parent is not None else _PREFIX
    return click.Context(command, info_name=name, parent=parent, auto_envvar_prefix=prefix)


def _described(command: click.Command, ctx: click.Context) -> str:
    own = [param for param in command.params if isinstance(param, click.Option) and param.name not in SHARED]
    shares = any(param.name in SHARED for param in command.params)
    parts = [f"### {ctx.command_path}", inspect.cleandoc(command.help or ""), f"```text\n{_usage(command, ctx)}\n```"]
    if own:
        parts.append(table(_HEAD, [_option(param, ctx) for param in own]))
    if shares:
        parts.append("And the shared options.")
    return "\n\n".join(parts)


def _usage(command: click.Command, ctx: click.Context) -> str:
    return " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])


def _option(param: click.Parameter, ctx: click.Context) -> tuple[str, str, str]:
    assert isinstance(param, click.Option)
    names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    value = "" if param.is_flag or param.metavar is None else f" `{param.metavar}`"
    return names + value, _environment(param, ctx), param.help or ""


def _environment(param: click.Option, ctx: click.Context) -> str:
    if not param.expose_value or not param.allow_from_autoenv:
        return ""
    given = param.envvar
    if isinstance(given, str):
        return f"`{given}`"
    return f"`{ctx.auto_envvar_prefix}_{(param.name or '').upper()}`"


def _section(param: click.Parameter) -> str:
    return param.section if isinstance(param, SectionOption) else OTHER
