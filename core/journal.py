"""Lines for systemd's journal: with their priority, and without a time of their own, because the journal notes it.

systemd connects stderr with the journal and says so in JOURNAL_STREAM (systemd.exec(5)); a line that begins with `<N>`
there has the syslog priority N (sd-daemon(3)). Used by `core.logs`, and by whoever writes to stderr past logging. JSON
and logfmt lines are left alone: they are for programs, and name their level themselves.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .secrets import scrub

if TYPE_CHECKING:
    from logging import LogRecord

    from .loglines import Render

#: Syslog's priorities by the least of logging's levels that has them, as numbers: `qworker --version` needs no logging.
_PRIORITIES: Final = ((50, "<2>"), (40, "<3>"), (30, "<4>"), (20, "<6>"))
_DEBUG: Final = "<7>"
_ERROR: Final = 40


def is_journal(fd: int = 2) -> bool:
    """Whether this descriptor leads to the journal (and has not been redirected since systemd said so)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    with suppress(OSError):
        found = os.fstat(fd)
        return (str(found.st_dev), str(found.st_ino)) == (device, inode)
    return False


def with_priority(render: Render) -> Render:
    """The same lines, each with its priority: a stack of twenty lines is twenty lines to the journal."""

    def render_with_priority(record: LogRecord) -> str:
        return _prefix(render(record), record.levelno)

    return render_with_priority


def say(text: str, level: int = _ERROR) -> None:
    """Write lines to stderr, to the journal with their priority. Never raises: nobody may be listening."""
    text = scrub(text.rstrip("\n"))
    with suppress(OSError, ValueError):
        sys.stderr.write((_prefix(text, level) if is_journal() else text) + "\n")
        sys.stderr.flush()


def _prefix(text: str, level: int) -> str:
    mark = next((mark for least, mark in _PRIORITIES if level >= least), _DEBUG)
    return mark + text.replace("\n", f"\n{mark}") if "\n" in text else mark + text
