"""What qworker may write to its log at WARNING and above, read from its code.

A text is known by what is constant in it: every placeholder of `%` and every `{field}` becomes `…`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

LEVELS: Final = ("WARNING", "ERROR", "CRITICAL")
_METHODS: Final = {"warning": "WARNING", "error": "ERROR", "critical": "CRITICAL", "exception": "ERROR"}
_PLACEHOLDER: Final = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[sdrfgix]|\{\w+(?:!r)?(?::[^}]*)?\}")


class LogText(NamedTuple):
    """One text: where it stands, its level, and itself with `…` for what differs."""

    file: str
    level: str
    text: str


def log_texts(package: Path) -> list[LogText]:
    """Every text of every file below `package`."""
    rooms = [room for room in package.iterdir() if (room / "__init__.py").exists() and room.name not in _NOT_INSTALLED]
    files = sorted(file for room in rooms for file in room.glob("*.py"))
    return [found for file in files for found in _in_file(file, str(file.relative_to(package)))]


_NOT_INSTALLED: Final = {"tests", "bench", "docs", "examples", "testing"}


def _in_file(file: Path, name: str) -> Iterator[LogText]:
    tree = ast.parse(file.read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        for call in _calls_of(function):
            for level in _levels(call, function):
                for text in _texts(call, function):
                    yield LogText(name, level, _skeleton(text))


def _calls_of(function: ast.FunctionDef) -> Iterator[ast.Call]:
    """The calls in a function, without those of functions in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Call):
            yield node
        if not isinstance(node, ast.FunctionDef):
            todo.extend(ast.iter_child_nodes(node))


def _levels(call: ast.Call, within: ast.FunctionDef) -> list[str]:
    """The levels at which this call may log; none for a call that does not log."""
    function = call.func
    if _is_logger(function) and isinstance(function, ast.Attribute) and function.attr in _METHODS:
        return [_METHODS[function.attr]]
    given = [meant for argument in call.args for meant in _meant(argument, within)]
    named = [node.attr for meant in given for node in ast.walk(meant) if _is_level(node)]
    return [level for level in LEVELS if level in named]


def _is_logger(function: ast.expr) -> bool:
    """Whether it is a method of something called `log`, `logger` or the like."""
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and "log" in function.value.id


def _is_level(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "logging"


def _texts(call: ast.Call, function: ast.FunctionDef) -> list[str]:
    """What the call may say: of the arguments with text, the `text=`, else the longest."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "text"]
    for argument in named or call.args:
        found = [text for node in _meant(argument, function) for text in _as_text(node)]
        sentences = [text for text in found if " " in text or "%" in text or "{" in text]
        if sentences:
            return sentences
    return []


def _meant(node: ast.expr, function: ast.FunctionDef, seen: frozenset[str] = frozenset()) -> Iterator[ast.expr]:
    """The expression, or what a local name has been given, through `a if b else c`."""
    if isinstance(node, ast.IfExp):
        yield from _meant(node.body, function, seen)
        yield from _meant(node.orelse, function, seen)
    elif isinstance(node, ast.Name):
        for assigned in ast.walk(function) if node.id not in seen else ():
            if isinstance(assigned, ast.Assign) and any(_is_name(target, node.id) for target in assigned.targets):
                yield from _meant(assigned.value, function, seen | {node.id})
    else:
        yield node


def _is_name(target: ast.expr, name: str) -> bool:
    return isinstance(target, ast.Name) and target.id == name


def _as_text(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(p.value) if isinstance(p, ast.Constant) else "%s" for p in node.values)]
    return []


def _skeleton(text: str) -> str:
    return re.sub(r"\s+", " ", _PLACEHOLDER.sub("…", text)).strip()
