"""The `qworker` command: the worker's options by itself, and the other commands by name, each loaded only when used.

`qworker -A app -c 4`, `qworker -A app worker -c 4` and `qworker worker -A app -c 4` are the same: the word `worker` is
taken out, and what is left are the options of this command. Called by `cli.entry`.
"""

from __future__ import annotations

import difflib
import importlib
import signal
import textwrap
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import click
from click.core import ParameterSource

from . import WORKER_SIGNALS
from .options import OTHER, OTHER_COMMAND, SECTIONS, SHARED, TERSE, SectionOption, worker_options


class _Entry(NamedTuple):
    module: str
    help: str


#: Every command but `worker`; the attribute in the module is called `command`.
_COMMANDS: Final = {
    "demo": _Entry("demo", "Show it all in a few seconds: broker, worker, tasks of all kinds."),
    "call": _Entry("call_cmd", "Send a task."),
    "result": _Entry("result_cmd", "Show what became of a task."),
    "queues": _Entry("queues_cmd", "Show how many messages wait on each queue."),
    "purge": _Entry("purge_cmd", "Delete the messages that wait on queues."),
    "dead": _Entry("dead_cmd", "List, show, requeue or delete dead letters."),
    "status": _Entry("status_cmd", "Show what the workers on this host do now."),
    "health": _Entry("health_cmd", "Exit 0 if the worker on this host lives, 1 if not."),
    "doctor": _Entry("doctor_cmd", "Look at application, broker, queues and results, and say what will go wrong."),
    "systemd": _Entry("systemd_cmd", "Write or show a unit with which systemd runs a worker."),
    "report": _Entry("report_cmd", "Show versions, platform and settings, for a bug report."),
}
_WORKER_HELP: Final = "Run the worker (the default)."
#: Commands that are announced but not there yet.
_LATER: Final = ("beat", "inspect", "control", "events", "top", "dashboard")


class RootCommand(click.Group):
    """A group whose own options are the worker's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take out the word `worker`, if it is the first that is no option."""
        if not ctx.resilient_parsing:
            _, rest, _ = self.make_parser(ctx).parse_args(list(args))
            if rest and rest[0] == "worker":
                at = len(args) - len(rest)
                args = args[:at] + args[at + 1 :]
            elif rest:
                ctx.meta[OTHER_COMMAND] = rest[0]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as `--help` shows them."""
        return ["worker", *_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = importlib.import_module(f".{entry.module}", __package__).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one; refuse worker options that would mean nothing to it."""
        name = args[0]
        if name not in _COMMANDS:
            raise click.UsageError(_unknown(name, self.list_commands(ctx)), ctx)
        _refuse_worker_options(ctx, self.params, name)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WORKER_SIGNALS)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands, then the worker's options in their sections."""
        self.format_commands(ctx, formatter)
        for section in SECTIONS:
            options = [option for option in self.get_params(ctx) if _section(option) == section]
            with formatter.section(section):
                if section in TERSE:
                    formatter.write(_names_only(options, formatter))
                else:
                    formatter.write_dl([row for row in (option.get_help_record(ctx) for option in options) if row])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([("worker", _WORKER_HELP), *((name, entry.help) for name, entry in _COMMANDS.items())])


def _names_only(options: Sequence[click.Parameter], formatter: click.HelpFormatter) -> str:
    indent = " " * formatter.current_indent
    names = ", ".join("/".join(option.opts) for option in options)
    lines = textwrap.wrap(
        names, formatter.width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return "\n".join(lines) + "\n"


def _section(option: click.Parameter) -> str:
    return option.section if isinstance(option, SectionOption) else OTHER


def _unknown(name: str, known: Sequence[str]) -> str:
    if name in _LATER:
        return f"the command {name!r} is not in this version"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"no such command {name!r}; {hint}"


def _refuse_worker_options(ctx: click.Context, params: Sequence[click.Parameter], command: str) -> None:
    for param in params:
        given = ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and isinstance(param, SectionOption) and param.name not in SHARED:
            raise click.UsageError(f"{param.opts[-1]} is an option of the worker and means nothing to {command!r}", ctx)


def _show_version(ctx: click.Context, _param: click.Parameter, is_asked: bool) -> None:
    if is_asked and not ctx.resilient_parsing:
        from .. import __version__

        click.echo(f"qworker {__version__}")
        ctx.exit()


def _start(ctx: click.Context, /, **_values: Any) -> int | None:
    """What runs when no command was named: the worker."""
    if ctx.invoked_subcommand is not None:
        return None
    from .worker_cmd import start

    return start(ctx)


root: Final = RootCommand(
    "qworker",
    callback=click.pass_context(_start),
    invoke_without_command=True,
    help="Run a worker: it takes tasks from queues and runs them in child processes.\n\n"
    "Every option is also read from the environment, --queues from QWORKER_QUEUES.",
    epilog="Examples: qworker -A shop -c 4 -Q hipri; qworker -A shop call shop.charge --args '[7]'; qworker demo",
    params=[
        *worker_options(),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            allow_from_autoenv=False,  # QWORKER_VERSION in an image says which one was installed
            callback=_show_version,
            help="Show the version.",
        ),
    ],
    subcommand_metavar="[COMMAND [ARGS]...]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
