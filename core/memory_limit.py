"""How much memory the kernel lets this process and its children have: shown in the banner, compared with their limits.

Above memory.max the kernel kills (cgroups' version 1: limit_in_bytes), above memory.high it slows everybody down until
that much is free again; a worker that lives there is as good as dead. So the tightest of them counts, on the whole way
up. Sources: those of `cgroups`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from .cgroups import Cgroups, read

MIB: Final = 1024 * 1024
_FILES: Final = {1: ("memory.limit_in_bytes",), 2: ("memory.max", "memory.high")}


def memory_limit(cgroups: Cgroups | None = None) -> int | None:
    """The tightest limit in bytes, None when none is below the memory of the host."""
    limits = [limit for limit in _limits(cgroups or Cgroups()) if limit < _host_memory()]
    return min(limits, default=None)


def mib(number: int) -> str:
    """Bytes as an operator writes them: `512 MiB`, `1.5 GiB`."""
    whole = number / MIB
    return f"{whole:.0f} MiB" if whole < 1024 else f"{whole / 1024:.3g} GiB"


def _limits(cgroups: Cgroups) -> Iterator[int]:
    for version, folder in cgroups.folders("memory"):
        for name in _FILES[version]:
            text = read(folder / name).strip()
            if text.isdecimal():  # version 2 writes `max` for none, version 1 a number above any memory
                yield int(text)


def _host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
