"""The events of docs/logs.md are those of the code, and every line that the code logs has one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import qworker
from qworker.core import log_events

import made

PAGE = Path(made.__file__).resolve().parent.parent / "logs.md"
PACKAGE = Path(qworker.__file__).resolve().parent
NAMES = {name: value for name, value in vars(log_events).items() if name.isupper()}
OUTSIDE = {"tests", "bench", "docs", "examples", "testing"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a method of `logger` or of `logs`, and where it stands."""
    for file in sorted(PACKAGE.glob("*/*.py")):
        if file.parent.name in OUTSIDE:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield f"{file.relative_to(PACKAGE)}:{node.lineno}", node


def test_the_page_lists_exactly_the_events_of_the_code() -> None:
    listed = re.findall(r"^\| `([a-z_-]+)` \| [A-Z, ]+ \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(NAMES.values())
    assert len(set(listed)) == len(listed) > 80


def test_every_name_is_written_somewhere() -> None:
    code = "".join(file.read_text("utf-8") for file in PACKAGE.glob("*/*.py"))
    assert [name for name in NAMES if f"log_events.{name}" not in code] == []


def test_what_is_logged_above_debug_is_an_event() -> None:
    plain = [
        where
        for where, call in calls()
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ("info", "warning", "error", "critical", "exception", "log")
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "logger"
    ]
    assert plain == []


def test_no_pair_takes_the_place_of_what_every_line_has() -> None:
    """A pair `message` would hide the text in a JSON line."""
    taken = {"ts", "level", "logger", "process", "pid", "event", "message", "exception"}
    found = [
        (where, keyword.arg)
        for where, call in calls()
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ("say", "event")
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "logs"
        for keyword in call.keywords
        if keyword.arg in taken
    ]
    assert found == []
