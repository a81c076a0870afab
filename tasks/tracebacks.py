"""Tracebacks for people: only the user's own part. Called by the executor for results and logs, and by loader.py."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final

_ROOMS: Final = ("cli", "core", "pool", "results", "signals", "tasks", "transports", "worker")
_ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN_FILES: Final = tuple(os.path.join(_ROOT, room, "") for room in _ROOMS)
_IMPORT_MACHINERY: Final = ("<frozen importlib", "<frozen runpy", "importlib/__init__.py")


def text_of(exc: BaseException) -> str:
    """Return the traceback of `exc` as Python prints it, without the frames that lead up to the user's code."""
    import traceback  # loads slowly, and most processes never need it

    return "".join(traceback.format_exception(type(exc), exc, _first_of_users(exc.__traceback__)))


def _first_of_users(tb: TracebackType | None) -> TracebackType | None:
    first = tb
    while first is not None and _is_machinery(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    return first


def _is_machinery(filename: str) -> bool:
    return filename.startswith(_OWN_FILES) or any(part in filename for part in _IMPORT_MACHINERY)
