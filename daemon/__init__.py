"""A worker's place on its machine: in the background, under its own user, with a pid file and a log file of its own.

Called by the command line, which wraps the worker's whole life in `settled`; standard library only. What only a worker
needs is loaded when it is first asked for: other commands come through this door as well.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from .mark import carried_over

if TYPE_CHECKING:
    from .identity import Identity
    from .pidfile import Pidfile
    from .wish import Wish, settled

__all__ = ["Identity", "Pidfile", "Wish", "carried_over", "settled"]

_WHERE: Final = {"Identity": "identity", "Pidfile": "pidfile", "Wish": "wish", "settled": "wish"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
