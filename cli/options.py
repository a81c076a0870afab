"""The options of the worker and those that every command shares, as a table. Read by `root`, `common` and the commands.

Each value is checked by a small function that returns what is kept, or refuses with the nearest word that would do.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from ..core.cpus import usable_cpus

_APPLICATION: Final = "Application"
_WORKER: Final = "Worker"
_QUEUES: Final = "Queues"
_LOGGING: Final = "Logging"
_PROCESS: Final = "Process"
_LATER: Final = "Not in this version"
_NO_EFFECT: Final = "Accepted, without effect"
OTHER: Final = "Other"

#: The sections of `--help` in their order; those in TERSE show names only.
SECTIONS: Final = (_APPLICATION, _WORKER, _QUEUES, _LOGGING, _PROCESS, OTHER, _NO_EFFECT, _LATER)
TERSE: Final = frozenset({_NO_EFFECT, _LATER})

#: Options that may stand before any command's name, and after it.
SHARED: Final = frozenset({"app", "broker", "result_backend", "config", "workdir", "no_color", "quiet", "loglevel"})

#: In `ctx.meta` when a command other than the worker runs: its name.
OTHER_COMMAND: Final = "qworker.other_command"

_LEVELS: Final = ("debug", "info", "warning", "error", "critical", "fatal")


class SectionOption(click.Option):
    """An option that knows its section of `--help`."""

    def __init__(self, declarations: Sequence[str], section: str, **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.section = section

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """What the environment says; to another command it says nothing by the worker's own options."""
        if OTHER_COMMAND in ctx.meta and self.name not in SHARED:
            return None
        return super().resolve_envvar_value(ctx)


def shared_options() -> list[click.Option]:
    """The options of SHARED, made anew for each command."""
    return [
        _value(_APPLICATION, "-A", "--app", metavar="APP", help="The application: module, or module:attribute."),
        _value(_APPLICATION, "-b", "--broker", metavar="URL", help="Broker, instead of the application's."),
        _value(_APPLICATION, "--result-backend", metavar="URL", help="Result store, instead of the application's."),
        _value(_APPLICATION, "--config", metavar="MODULE", help="A module with settings."),
        _value(_APPLICATION, "--workdir", metavar="DIR", help="Change to this directory first."),
        _value(
            _LOGGING, "-l", "--loglevel", metavar="LEVEL", check=_level, help="debug, info (default), warning, error."
        ),
        _flag(_LOGGING, "-C", "--no-color", help="No colours."),
        _flag(_LOGGING, "-q", "--quiet", help="No banner, no remarks."),
    ]


def worker_options() -> list[click.Option]:
    """Every option of the worker."""
    return [
        *shared_options(),
        _value(
            _LOGGING,
            "-f",
            "--logfile",
            metavar="FILE",
            help="Log to this file instead of stderr; %n is the node's name, %h its host, %i the child's number.",
        ),
        _choice(_LOGGING, "--log-format", words=("text", "json", "logfmt"), help="Shape of a line (text)."),
        _value(
            _WORKER, "-c", "--concurrency", metavar="N|auto", check=_concurrency, help="Children (auto: one per CPU)."
        ),
        _choice(_WORKER, "-P", "--pool", words=("prefork", "threads", "solo"), check=_pool, help="prefork."),
        _value(
            _WORKER,
            "-n",
            "--hostname",
            metavar="NAME",
            help="Node name; %h is the host, %n its name part, %d its domain.",
        ),
        _choice(
            _WORKER, "-O", "--optimization", words=("default", "fair"), help="fair: a busy child is given nothing more."
        ),
        _value(
            _WORKER,
            "--prefetch-multiplier",
            metavar="N",
            check=_prefetch,
            help="Messages held per child (as run times ask).",
        ),
        _flag(_WORKER, "--burst", help="Exit when the queues are empty."),
        _value(
            _WORKER, "--autoscale", metavar="MAX,MIN", check=_autoscale, help="Grow and shrink between these numbers."
        ),
        _value(_WORKER, "--max-tasks-per-child", metavar="N", check=_count, help="Replace a child after N tasks."),
        _value(_WORKER, "--recycle-jitter", metavar="N", check=_count, help="…after up to N more, at random."),
        _value(
            _WORKER, "--max-memory-per-child", metavar="KIB", check=_count, help="Replace a larger one after its task."
        ),
        _value(_WORKER, "--max-memory-hard", metavar="KIB", check=_count, help="Kill a larger one at once."),
        _value(_WORKER, "--time-limit", metavar="S", check=_limit, help="Kill a task after this many seconds."),
        _value(_WORKER, "--soft-time-limit", metavar="S", check=_limit, help="Raise SoftTimeLimitExceeded in it."),
        _value(
            _WORKER, "--soft-shutdown-timeout", metavar="S", check=_seconds, help="What QUIT leaves to running tasks."
        ),
        _value(
            _WORKER,
            "--http",
            metavar="HOST:PORT|unix:PATH",
            help="Serve health, metrics and status here too (a socket in the runtime directory; off: nowhere).",
        ),
        _value(_WORKER, "--http-token", metavar="SECRET", help="What to show there; better set in QWORKER_HTTP_TOKEN."),
        _value(_QUEUES, "-Q", "--queues", metavar="A,B", check=names, help="Queues to take from (the application's)."),
        _value(_QUEUES, "-X", "--exclude-queues", metavar="A,B", check=names, help="Queues not to take from."),
        _value(_QUEUES, "-I", "--include", metavar="A,B", check=names, help="More modules to import."),
        _flag(_QUEUES, "--purge", "--discard", "purge", help="Delete what waits on the queues, then start."),
        _flag(_QUEUES, "--create-missing-queues", help="Create queues that do not exist (SQS)."),
        _flag(_PROCESS, "-D", "--detach", help="Go on in the background as soon as the worker is ready."),
        _value(_PROCESS, "--pidfile", metavar="FILE", help="Write the master's process id there; one worker per file."),
        _value(_PROCESS, "--uid", metavar="USER", help="As root: become this user for good."),
        _value(_PROCESS, "--gid", metavar="GROUP", help="As root: become this group (the user's)."),
        _value(_PROCESS, "--umask", metavar="OCTAL", check=_umask, help="Bits that new files do not get."),
        *_without_effect(),
        *_later(),
    ]


def ineffective(ctx: click.Context) -> list[str]:
    """The options that were given and mean nothing here."""
    return [
        param.opts[-1]
        for param in ctx.command.params
        if isinstance(param, SectionOption) and param.section == _NO_EFFECT and ctx.params.get(param.name or "")
    ]


def names(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Names between commas; blanks around them do not count."""
    found = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    if text is not None and not found:
        raise click.BadParameter(f"{text!r} holds no name", ctx, param)
    return found


def _without_effect() -> list[click.Option]:
    flags = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    values = ("--heartbeat-interval", "--executable")
    return [*(_flag(_NO_EFFECT, name) for name in flags), *(_value(_NO_EFFECT, name) for name in values)]


def _later() -> list[click.Option]:
    flags = ("-E --task-events", "-B --beat", "--reload")
    values = (
        *("-S --statedb", "-s --schedule", "--scheduler"),
        "--async-concurrency",
    )
    return [
        *(_flag(_LATER, *name.split(), check=_refuse_later) for name in flags),
        *(_value(_LATER, *name.split(), check=_refuse_later) for name in values),
    ]


_Check = Callable[[click.Context, click.Parameter, Any], Any]


def _value(section: str, *declarations: str, check: _Check | None = None, **attributes: Any) -> click.Option:
    return SectionOption(declarations, section, callback=check, **attributes)


def _flag(section: str, *declarations: str, check: _Check | None = None, **attributes: Any) -> click.Option:
    return SectionOption(declarations, section, is_flag=True, callback=check, **attributes)


def _choice(
    section: str, *declarations: str, words: Sequence[str], check: _Check | None = None, help: str
) -> click.Option:
    """An option whose first word is the default."""

    def accept(ctx: click.Context, param: click.Parameter, text: str) -> Any:
        if text not in words:
            raise click.BadParameter(_not_among(text, words), ctx, param)
        return check(ctx, param, text) if check else text

    return SectionOption(declarations, section, default=words[0], metavar="|".join(words), callback=accept, help=help)


def _not_among(text: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(text.lower(), words, n=1)
    return f"{text!r} is unknown; " + (f"did you mean {near[0]!r}?" if near else f"it can be {', '.join(words)}")


def _level(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    if text is None:
        return None
    if text.lower() not in _LEVELS:
        raise click.BadParameter(_not_among(text, _LEVELS), ctx, param)
    return text.upper()


def _concurrency(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    if text.lower() == "auto":
        return usable_cpus()
    return _whole_number(ctx, param, text, "a worker without children runs nothing; give 1 or more, or 'auto'")


def _autoscale(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Least and most children, from Celery's MAX,MIN."""
    if text is None:
        return None
    most, _, least = text.partition(",")
    numbers = [_whole_number(ctx, param, part.strip(), "give 1 or more") for part in (least or most, most)]
    if numbers[0] > numbers[1]:
        raise click.BadParameter(f"{text}: write MAX,MIN, the larger number first", ctx, param)
    return numbers[0], numbers[1]


def _seconds(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number of seconds", ctx, param) from None
    if not 0 <= seconds < 1e9:
        raise click.BadParameter(f"{text}: give seconds, not less than 0", ctx, param)
    return seconds


def _limit(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    seconds = _seconds(ctx, param, text)
    if seconds == 0:
        raise click.BadParameter(f"{text}: give seconds, more than 0", ctx, param)
    return seconds


def _umask(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        bits = int(text, 8)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an octal number, such as 027", ctx, param) from None
    if not 0 <= bits <= 0o777:
        raise click.BadParameter(f"{text}: give an octal number from 0 to 777", ctx, param)
    return bits


def _count(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    return None if text is None else _whole_number(ctx, param, text, "give 1 or more")


def _prefetch(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    return _whole_number(ctx, param, text, "the number of held messages is always limited; give 1 or more")


def _whole_number(ctx: click.Context, param: click.Parameter, text: str, too_small: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a whole number", ctx, param) from None
    if number < 1:
        raise click.BadParameter(f"{number}: {too_small}", ctx, param)
    return number


def _pool(ctx: click.Context, param: click.Parameter, text: str) -> str:
    if text != "prefork":
        raise click.UsageError(f"{param.opts[-1]} {text} is not in this version; leave it away for prefork", ctx)
    return text


def _refuse_later(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value not in (None, False):
        raise click.UsageError(f"{param.opts[-1]} is not in this version; start without it", ctx)
