"""`qworker health`: whether the worker on this host lives, or is ready, as an exit code for a container's HEALTHCHECK.

It runs every few seconds and so has a way of its own past the command line (`main`), which takes 60 ms: the arguments
of a usual call are read here; anything else is left to `health_cmd.py`, which knows the rest and explains mistakes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..core.errors import ConfigError
from ..monitor import AskError, ask
from .streams import abandon

LIVE, READY = "/livez", "/readyz"


def quick(arguments: Sequence[str]) -> int | None:
    """Carry out a usual call; None for one that has to be read by others."""
    node = os.environ.get("QWORKER_HOSTNAME") or None
    path = LIVE
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--ready":
            path = READY
        elif word in ("-n", "--hostname") and words and not words[0].startswith("-"):
            node = words.pop(0)
        else:
            return None
    return check(path, node, os.environ.get("QWORKER_HTTP"), os.environ.get("QWORKER_HTTP_TOKEN", ""))


def check(path: str, node: str | None, http: str | None, token: str, *, is_quiet: bool = False) -> int:
    """Ask and say the answer; returns the exit code: 0 = yes, 1 = no, or nobody has answered."""
    try:
        status, body = ask(path, node=node, http=http, token=token)
    except (AskError, ConfigError) as error:
        sys.stderr.write(f"qworker: {error}\n")
        return 1
    if not is_quiet:
        _show(body.decode("utf-8", "replace"))
    return 0 if status == 200 else 1


def _show(text: str) -> None:
    """Write it where that can be done: for who only looks at the exit code a full disk changes nothing."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        abandon(1)
