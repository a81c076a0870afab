"""How long this machine lets a process wait for its turn: written down by a process that wants to wake every 5 ms.

The ack window is a promise of the worker, not of a machine with more work than processors: the judge adds what a
hand-over had to wait at that moment. Run as a program by `Fleet`; ends with the process that has started it.
"""

import os
import struct
import sys
import time

RECORD = struct.Struct("<dd")  # when it woke (CLOCK_BOOTTIME), and how late that was, in seconds
EVERY_S = 0.005
WORTH_S = 0.002


def beat(path: str) -> None:
    parent = os.getppid()
    with open(path, "ab", buffering=0) as file:
        while os.getppid() == parent:
            wanted = time.clock_gettime(time.CLOCK_BOOTTIME) + EVERY_S
            time.sleep(EVERY_S)
            woke = time.clock_gettime(time.CLOCK_BOOTTIME)
            if woke - wanted > WORTH_S:
                file.write(RECORD.pack(woke, woke - wanted))


if __name__ == "__main__":
    beat(sys.argv[1])
