"""How long processes of this machine have waited for a processor: written down every 5 ms while a fleet runs.

The ack window is a promise of the worker, not of a machine with more work than processors: the judge counts the time
in which nobody had to wait. Run as a program by `Fleet`; ends with the process that has started it. Uses the kernel's
count (/proc/pressure/cpu); without one it counts by how much it wakes too late itself.
"""

import os
import struct
import sys
import time

#: CLOCK_BOOTTIME, and how long somebody has waited up to then; both in seconds.
RECORD = struct.Struct("<dd")
EVERY_S = 0.005
PRESSURE = "/proc/pressure/cpu"
#: From the end of a task to its ack: child → master → result store → master → broker, each of which may wait as we do.
HAND_OVERS = 4


def beat(path: str) -> None:
    parent = os.getppid()
    known, late = -1.0, 0.0
    with open(path, "xb", buffering=0) as file:
        while os.getppid() == parent:
            wanted = time.clock_gettime(time.CLOCK_BOOTTIME) + EVERY_S
            time.sleep(EVERY_S)
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            late += max(0.0, now - wanted - EVERY_S) * HAND_OVERS
            waited = _pressure()
            waited = late if waited is None else waited
            if waited != known:
                known = waited
                file.write(RECORD.pack(now, waited))


def _pressure() -> float | None:
    try:
        with open(PRESSURE) as file:
            return int(file.readline().rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    try:
        beat(sys.argv[1])
    except FileExistsError:  # another fleet of the same test writes it
        pass
