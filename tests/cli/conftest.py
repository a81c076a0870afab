"""The command line in this process: what it prints, and its exit code; and a small application in its own folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from qworker.cli.entry import run

APPLICATION = """
from qworker import App

app = App("cli_shop", broker="sqlite:///{folder}/q.db", backend="sqlite:///{folder}/q.db")

@app.task
def add(x, y):
    return x + y

@app.task(queue="hipri")
def boom():
    raise ValueError("bad thing")
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line on stderr."""
        assert self.err.count("\n") == 1, self.err
        return self.err.rstrip("\n")


Qworker = Callable[..., Ended]


@pytest.fixture
def qworker(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Qworker:
    """Run a command line; environment variables as keywords."""
    for name in list(os.environ):
        if name.startswith("QWORKER_"):
            monkeypatch.delenv(name)

    def call(*arguments: str, **environment: str) -> Ended:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = run(arguments)
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the application `cli_shop`, which is the working directory."""
    (tmp_path / "cli_shop.py").write_text(APPLICATION.format(folder=tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    module = sys.modules.get("cli_shop")
    if module is not None:
        module.app.close()
    for name in set(sys.modules) - before:
        if name.startswith("cli_"):
            del sys.modules[name]
