"""From arguments to an exit code: every error becomes its code and one clear line on stderr. Called by `cli.main`.

A traceback is shown only for a bug in qworker, or with `-l debug`; the user's own code gets its own part of one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from ..core import errors, journal
from ..worker import ExitCode, Image
from .root import root
from .streams import abandon

_INTERRUPTED: Final = 130


def run(arguments: Sequence[str], image: Image | None = None) -> int:
    """Carry out the command; return the exit code. Never raises.

    `image`: how to start this process anew, if these are its arguments.
    """
    try:
        code = root.main(
            list(arguments), prog_name="qworker", standalone_mode=False, auto_envvar_prefix="QWORKER", obj=image
        )
        sys.stdout.flush()
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else ExitCode.INTERNAL
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # `qworker queues | head`: nobody reads on. The interpreter would complain when it flushes at exit.
        abandon(1)
        return 1
    except Exception as error:  # the last resort of the process: whatever it is, it gets a code and a line
        return _explain(error, wants_traceback=_is_debug(arguments))
    return code if isinstance(code, int) else 0


def _explain(error: Exception, *, wants_traceback: bool) -> int:
    code, tell = next(((c, t) for kind, c, t in _EXPLANATIONS if isinstance(error, kind)), (ExitCode.INTERNAL, _bug))
    tell(error)
    if wants_traceback and code is not ExitCode.USAGE:
        import traceback

        traceback.print_exception(error)
    return int(code)


def _bug(error: Any) -> None:
    _say(f"internal error: {type(error).__name__}: {error}; run it again with -l debug and report the traceback")


def _usage(error: Any) -> None:
    command = error.ctx.command_path if getattr(error, "ctx", None) else "qworker"
    _say(f"{error.format_message()} (see {command} --help)")


def _broken_app(error: Any) -> None:
    if error.details:
        journal.say(error.details)
    _say(str(error))


def _config(error: Any) -> None:
    for problem in error.problems or (str(error),):
        _say(problem)


def _plain(error: Any) -> None:
    _say(str(error))


_EXPLANATIONS: Final[Sequence[tuple[type[Exception], ExitCode, Callable[[Any], None]]]] = (
    (click.UsageError, ExitCode.USAGE, _usage),
    (click.ClickException, ExitCode.CUT, lambda error: _say(error.format_message())),
    (errors.AppImportError, ExitCode.APP, _broken_app),
    (errors.ConfigError, ExitCode.CONFIG, _config),
    (errors.TransportError, ExitCode.UNREACHABLE, _plain),
    (errors.ResultStoreError, ExitCode.UNREACHABLE, _plain),
    (errors.TaskError, ExitCode.CUT, _plain),
)


def _say(text: str) -> None:
    """One line, whatever is in it."""
    journal.say("qworker: " + " ".join(text.split()))


def _is_debug(arguments: Sequence[str]) -> bool:
    """Whether `-l debug` was asked for; read here, because the error may be about the arguments themselves."""
    if os.environ.get("QWORKER_LOGLEVEL", "").lower() == "debug":
        return True
    words = " ".join(arguments).lower().replace("=", " ").replace("-ldebug", "-l debug")
    return any(f"{option} debug" in words for option in ("-l", "--loglevel"))
