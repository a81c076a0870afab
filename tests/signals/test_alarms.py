"""What becomes of an alarm that a task has left."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: pytest-timeout has set the alarm of this one.
_PROGRAM = """
import signal, sys
from qworker.signals import forget_alarm

signal.setitimer(signal.ITIMER_REAL, 1000.0, float(sys.argv[1]))
forget_alarm()
print(signal.getitimer(signal.ITIMER_REAL)[0] > 0)
"""


@pytest.mark.parametrize(("every_s", "stays"), [(0, False), (1000, True)])
def test_one_alarm_is_forgotten_and_a_timer_that_repeats_stays(every_s: int, stays: bool) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(every_s)], capture_output=True, text=True, check=True, timeout=60
    )

    assert said.stdout == f"{stays}\n"
