"""Shifts the wall clock of Python processes that import it: copied into a folder on their path as `sitecustomize.py`.

The number of seconds stands in a file that the test changes while they run. `time.time` is what is shifted, and with
it everything in Python that asks for the time of day by it; clocks that no time server moves stay as they are.
"""

import mmap
import os
import struct
import time

_SHIFT = struct.Struct("<d")
_real = time.time


def _shifted(path: str) -> None:
    with open(path, "rb") as file:
        shift = mmap.mmap(file.fileno(), _SHIFT.size, access=mmap.ACCESS_READ)

    def shifted_time() -> float:
        seconds: float = _SHIFT.unpack_from(shift)[0]
        return _real() + seconds

    time.time = shifted_time
    time.time_ns = lambda: int(shifted_time() * 1e9)


if os.environ.get("CHAOS_CLOCK"):
    _shifted(os.environ["CHAOS_CLOCK"])
