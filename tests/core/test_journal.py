"""What reaches systemd's journal: priorities, no second time, and nothing of it when stderr leads elsewhere."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WRITES = """
import logging
from qworker.core import journal, logs
logs.configure("DEBUG", format={format!r})
log = logging.getLogger("qworker.test")
log.debug("of a message")
log.info("of the worker")
log.warning("heals itself")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("needs a person")
log.critical("ends")
journal.say("past\\nlogging")
"""


def written(format: str = "text", *, to_journal: bool = True) -> list[str]:
    """The lines of a process whose stderr is a stream socket, as systemd's; JOURNAL_STREAM names it, or another one."""
    ours, theirs = socket.socketpair()
    place = os.fstat((theirs if to_journal else ours).fileno())
    env = os.environ | {"JOURNAL_STREAM": f"{place.st_dev}:{place.st_ino}"}
    with ours, theirs:
        subprocess.run([sys.executable, "-c", WRITES.format(format=format)], env=env, stderr=theirs, timeout=30)
        theirs.close()
        return b"".join(iter(lambda: ours.recv(65536), b"")).decode().splitlines()


def test_each_line_has_its_priority_and_no_time() -> None:
    lines = written()
    assert lines[:3] == [
        "<7>[DEBUG/MainProcess] of a message",
        "<6>[INFO/MainProcess] of the worker",
        "<4>[WARNING/MainProcess] heals itself",
    ]
    assert lines[-3:] == ["<2>[CRITICAL/MainProcess] ends", "<3>past", "<3>logging"]


def test_every_line_of_a_stack_has_the_priority_of_its_first() -> None:
    stack = written()[3:-3]
    assert stack[0] == "<3>[ERROR/MainProcess] needs a person"
    assert stack[-1] == "<3>ZeroDivisionError: division by zero"
    assert all(line.startswith("<3>") for line in stack)


@pytest.mark.parametrize("format", ["json", "logfmt"])
def test_lines_for_programs_are_left_alone(format: str) -> None:
    assert [line for line in written(format)[:-2] if line.startswith("<")] == []


def test_a_stderr_that_was_redirected_is_no_journal() -> None:
    lines = written(to_journal=False)
    assert [line for line in lines if line.startswith("<")] == []
    assert lines[0].endswith(": DEBUG/MainProcess] of a message")
    assert lines[0].startswith("[20")


def test_a_log_file_is_no_journal(tmp_path: Path) -> None:
    code = WRITES.replace("format={format!r}", f"logfile={str(tmp_path / 'w.log')!r}")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        place = os.fstat(theirs.fileno())
        env = os.environ | {"JOURNAL_STREAM": f"{place.st_dev}:{place.st_ino}"}
        subprocess.run([sys.executable, "-c", code], env=env, stderr=theirs, timeout=30)
    assert "<" not in (tmp_path / "w.log").read_text().replace("<module>", "").replace("<string>", "")
