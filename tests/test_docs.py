"""What the README says is what the code does: commands, exit codes. The other pages have tests in `docs/`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


def readme() -> str:
    return (REPO / "README.md").read_text("utf-8")


def code_blocks(text: str) -> list[str]:
    return [block.strip() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]


def test_the_readme_begins_with_the_demo_and_the_tests() -> None:
    demo, tests, *_ = code_blocks(readme())
    assert demo == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/qworker demo"
    assert tests == "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"


def test_ci_runs_exactly_the_command_of_the_readme() -> None:
    lines = (REPO / ".ci" / "run").read_text("utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == [code_blocks(readme())[1]]


def test_the_readme_names_every_exit_code_and_no_other() -> None:
    from qworker.worker.exitcodes import ExitCode

    named = {int(code) for code in re.findall(r"^\| (\d+) \|", readme(), re.MULTILINE)}
    assert named == {int(code) for code in ExitCode}


@pytest.mark.parametrize("command", ["demo", "call", "result", "purge", "queues", "dead", "report"])
def test_the_commands_of_the_readme_exist(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qworker", command, "--help"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
