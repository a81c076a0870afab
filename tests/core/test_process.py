"""A process that is to be dead is dead before anybody says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from qworker.core.process import end_for_certain

# A parent that starts a process in a group of its own, names it and waits.
_PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE)
    yield parent
    parent.kill()
    parent.wait()
    assert parent.stdout is not None
    parent.stdout.close()


def child_of(parent: subprocess.Popen[bytes]) -> int:
    assert parent.stdout is not None
    return int(parent.stdout.readline())


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_parent_and_its_child_are_dead_when_that_is_said(parent: subprocess.Popen[bytes]) -> None:
    child = child_of(parent)
    assert end_for_certain([parent.pid], [child], 10.0)
    assert not is_running(parent.pid)
    assert not is_running(child)


def test_a_parent_that_stands_still_is_ended_as_well(parent: subprocess.Popen[bytes]) -> None:
    child = child_of(parent)
    os.kill(parent.pid, signal.SIGSTOP)
    assert end_for_certain([parent.pid], [child], 10.0)
    assert not is_running(child)


def test_processes_that_are_gone_already_are_dead() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert end_for_certain([gone.pid], [gone.pid], 10.0)
