"""Variables in the environment that look like options and are none: a misspelt one would do nothing, without a word.

Called by `worker_cmd` when the log is there.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping
from typing import Final

PREFIX: Final = "QWORKER_"
#: What Kubernetes gives to every pod for a service that is called qworker, or qworker-something.
_OF_SERVICES: Final = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_[0-9]+_[A-Z]+|$)")


def unknown_variables(
    options: Collection[str], commands: Collection[str], env: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Each set variable that no option has, and the one that it was probably meant to be, or "".

    `options` and `commands` by their names in Python; the variables of a command's own options are not looked at.
    """
    known = {PREFIX + name.upper() for name in options}
    own = tuple(f"{PREFIX}{name.upper()}_" for name in commands)
    names = [name for name in env if name.startswith(PREFIX) and name not in known and env[name]]
    strange = [name for name in names if not name.startswith(own) and not _OF_SERVICES.search(name)]
    return {name: _nearest(name, known) for name in sorted(strange)}


def _nearest(name: str, known: Collection[str]) -> str:
    tails = {one.removeprefix(PREFIX): one for one in sorted(known)}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), tails, n=1)
    return tails[near[0]] if near else ""
