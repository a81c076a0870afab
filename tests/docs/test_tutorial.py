"""The tutorial is run as a reader would run it: its files are written, its commands started, their output compared.

A comment before a block says what it is: `file: NAME`, `run` (commands and what they print), `background` (the worker),
`worker` (what the worker has printed since), `interrupt` (Ctrl-C, and what the worker prints then).
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import wait_until

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "tutorial.md"
LIMIT_S = 100.0
#: Commands that change nothing. What the worker does shows a moment later: a result is stored before its message goes.
LOOKS = (" queues", " dead list")


class Reader:
    """Who does what the page says, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "worker.log"
        self._env = {**os.environ, "PATH": f"{_commands(folder)}:{os.environ['PATH']}", "NO_COLOR": "1"}
        self._worker: subprocess.Popen[bytes] | None = None
        self._read = 0

    def file(self, text: str, name: str) -> None:
        (self._folder / name).write_text(text, "utf-8")

    def run(self, text: str) -> None:
        for command, expected in _commands_in(text):
            if command.endswith(LOOKS):
                self._look(command, expected)
                continue
            printed = self._output(command)
            assert _missing(expected, printed) is None, f"$ {command}\n{printed}"
            if not expected:
                assert printed == "", command

    def background(self, text: str) -> None:
        ((command, expected),) = _commands_in(text)
        with self._log.open("wb") as log:
            self._worker = subprocess.Popen(
                shlex.split(command), cwd=self._folder, env=self._env, stdout=log, stderr=log
            )
        self._expect(expected)

    def worker(self, text: str) -> None:
        self._expect(text.splitlines())

    def interrupt(self, text: str) -> None:
        assert self._worker is not None
        self._worker.send_signal(signal.SIGINT)
        assert self._worker.wait(LIMIT_S) == 0
        self._expect(text.splitlines())

    def close(self) -> None:
        if self._worker is not None and self._worker.poll() is None:
            self._worker.kill()
            self._worker.wait(LIMIT_S)

    def _look(self, command: str, expected: list[str]) -> None:
        wait_until(lambda: _missing(expected, self._output(command)) is None, f"{expected} from {command}", LIMIT_S)

    def _output(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", f"{command} 2>&1"],
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        return done.stdout

    def _expect(self, lines: list[str]) -> None:
        def new() -> str:
            # How many CPUs this machine gives us is nothing that a page could say.
            return re.sub(r"\(prefork; [^)]*\)", "(prefork)", self._log.read_text("utf-8"))[self._read :]

        try:
            wait_until(lambda: _missing(lines, new()) is None, "the worker's lines", LIMIT_S)
        except AssertionError:
            pytest.fail(f"the worker has not written {_missing(lines, new())!r}, but\n{new()}")
        self._read += _end(lines, new())


@pytest.mark.timeout(300)
def test_the_tutorial_does_what_it_says(reader: Reader) -> None:
    steps = re.findall(
        r"^<!-- (\w+)(?:: (\S+))? -->\n```\w+\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(steps) >= 15
    for act, name, text in steps:
        getattr(reader, act)(text, *filter(None, [name]))


def test_every_console_block_of_the_tutorial_is_run() -> None:
    before = re.findall(r"^(.*)\n```(?:console|python)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert all(re.match(r"<!-- \w+.* -->", line) for line in before), before


@pytest.mark.parametrize(
    ("expected", "printed", "is_there"),
    [
        (["a … c"], "x\na b c\n", True),
        (["a", "b"], "b\na\n", False),
        (["n   waiting"], "n waiting", True),
        (["5"], "15\n", False),
    ],
)
def test_outputs_are_compared_loosely_but_not_blindly(expected: list[str], printed: str, is_there: bool) -> None:
    assert (_missing(expected, printed) is None) is is_there


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.close()


def _commands(folder: Path) -> Path:
    """A folder with `qworker` and `python` of the environment under test."""
    programs = folder / "bin"
    programs.mkdir()
    for name, arguments in {"qworker": " -m qworker", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n')
        (programs / name).chmod(0o755)
    return programs


def _commands_in(text: str) -> list[tuple[str, list[str]]]:
    """The commands after `$ `, each with the lines that it prints."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(part.splitlines()[0], part.splitlines()[1:]) for part in parts]


def _missing(expected: list[str], printed: str) -> str | None:
    """The first of `expected` that is not a line of `printed`, in this order; None when all are there."""
    lines = iter(printed.splitlines())
    return next((wanted for wanted in expected if not any(map(_pattern(wanted).fullmatch, lines))), None)


def _end(expected: list[str], printed: str) -> int:
    """Where in `printed` the last of `expected` ends."""
    at = 0
    wanted = list(expected)
    for line in printed.splitlines(keepends=True):
        if not wanted:
            break
        at += len(line)
        if _pattern(wanted[0]).fullmatch(line.rstrip("\n")):
            wanted.pop(0)
    return at


def _pattern(line: str) -> re.Pattern[str]:
    """`…` is anything, blanks are blanks however many."""
    parts = [r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in line.split("…")]
    return re.compile(".*".join(parts))
