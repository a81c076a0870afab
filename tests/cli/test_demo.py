"""`qworker demo`, whole: the first thing that anybody runs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from qworker.cli.demo_plan import End, kinds_of, mixed, unexpected

DEMO = [sys.executable, "-m", "qworker", "demo"]


def rows_of(out: str) -> dict[str, list[str]]:
    """The table: kind → published, succeeded, retried, failed, dead-lettered."""
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("kind "))
    return {line[:20].strip(): line[20:].split()[:5] for line in lines[at + 1 :] if line[20:].split()[:1] != []}


def test_the_demo_runs_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    # What a user has set for their own workers does not matter.
    env = os.environ | {"TMPDIR": str(tmp_path), "QWORKER_QUEUES": "none", "QWORKER_CONCURRENCY": "0"}
    ended = subprocess.run(DEMO, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)

    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    rows = rows_of(ended.stdout)
    assert rows["fast"] == ["200", "200", "0", "0", "0"]
    assert rows["fails once"] == ["30", "30", "30", "0", "0"]
    assert rows["fails for good"] == ["20", "0", "0", "20", "0"]
    assert rows["kills its child once"] == ["5", "5", "5", "0", "0"]
    assert rows["kills every child"] == ["2", "0", "4", "0", "2"]
    assert "all as expected, nothing lost; worker stopped with exit code 0" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_there_is_a_bar(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    env = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen([*DEMO, "--tasks", "60", "-c", "2"], stdout=slave, stderr=slave, env=env)
    os.close(slave)
    shown = bytearray()
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # Linux says EIO when the last writer has closed a terminal
            break
        if not chunk:
            break
        shown += chunk
    os.close(master)

    assert process.wait(60) == 0, shown.decode()
    assert b"[##############################]" in shown


def test_every_kind_is_there_however_few_tasks_are_asked_for() -> None:
    for tasks in (30, 300, 1000):
        kinds = kinds_of(tasks)
        assert len(kinds) == 6
        assert all(kind.count > 0 for kind in kinds)
        assert abs(sum(kind.count for kind in kinds) - tasks) <= 12
        assert len(mixed(kinds)) == sum(kind.count for kind in kinds)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (None, "has not ended"),
        (End("FAILURE", 0, 0.1), "FAILURE after 0, not SUCCESS after 0 retries"),
        (End("SUCCESS", 2, 0.1), "SUCCESS after 2, not SUCCESS after 0 retries"),
    ],
)
def test_the_demo_notices_what_did_not_end_as_it_should(end: End | None, words: str) -> None:
    fast = kinds_of(30)[0]
    fast.sent["t1"] = 0.0

    (problem,) = unexpected([fast], {} if end is None else {"t1": end})
    assert words in problem
    assert unexpected([fast], {"t1": End("SUCCESS", 0, 0.1)}) == []


#: A worker in which what crashes ends last, and is buried a second after its result was stored.
_SLOW = """
import time
from qworker.transports.sqlite import SqliteTransport

requeue, reject = SqliteTransport.requeue, SqliteTransport.reject


def later_requeue(self, deliveries, *, crashed=False, due=None):
    return requeue(self, deliveries, crashed=crashed, due=time.time() + 1.5 if crashed else due)


def slow_reject(self, rejections):
    time.sleep(1.0)  # the slowness that is planted
    return reject(self, rejections)


SqliteTransport.requeue, SqliteTransport.reject = later_requeue, slow_reject
"""


def test_the_demo_waits_for_what_becomes_of_a_message_after_its_result(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_SLOW)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [*DEMO, "--tasks", "30", "-c", "2"],
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
