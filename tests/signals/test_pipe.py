"""Signals are collected, and none gets lost when one program image hands over to the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from qworker.signals import SignalPipe

# The first image collects TERM and USR1, hands on, is sent HUP, and starts the second one in the same process.
_IMAGES = """
import os, signal, sys
from qworker.signals import SignalPipe

pipe = SignalPipe([signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
if len(sys.argv) > 1:
    pipe.inherit(int(sys.argv[1]))
    pipe.install()
    print(*(number.name for number in pipe.take()))
    os.fstat(int(sys.argv[1]))  # closed
else:
    pipe.install()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    fd = pipe.bequeath()
    os.kill(os.getpid(), signal.SIGHUP)
    os.execv(sys.executable, [sys.executable, __file__, str(fd)])
"""


def test_what_arrives_before_during_and_after_an_exec_is_collected_by_the_next_image(tmp_path: object) -> None:
    script = os.path.join(str(tmp_path), "images.py")
    with open(script, "w") as file:
        file.write(_IMAGES)
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
    assert ran.stdout.split() == ["SIGUSR1", "SIGTERM", "SIGHUP"], ran.stderr
    assert "Bad file descriptor" in ran.stderr


@pytest.mark.parametrize("fd", [-1, 1_000_000])
def test_an_image_that_follows_none_inherits_nothing(fd: int) -> None:
    pipe = SignalPipe([signal.SIGUSR2])
    pipe.inherit(fd)
    assert pipe.take() == []
    pipe.close()
