"""How many CPUs this process may use: the default for `--concurrency`. Called by the command line and the banner.

A container is usually limited by a quota of its cgroup, which `os.cpu_count` knows nothing of: on a 64-core host with
2 CPUs of quota 64 children would fight for 2 cores. Sources: sched_getaffinity(2), and those of `cgroups`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from .cgroups import Cgroups, read


def usable_cpus(cgroups: Cgroups | None = None) -> int:
    """Return the smaller of the CPU affinity and the cgroup quota (rounded up), at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota(cgroups)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def cpu_quota(cgroups: Cgroups | None = None) -> float | None:
    """The tightest quota from our own cgroup up to the root, in CPUs, None when nothing limits us."""
    folders = (cgroups or Cgroups()).folders("cpu")
    limits = [_quota_v2(folder) if version == 2 else _quota_v1(folder) for version, folder in folders]
    return min((limit for limit in limits if limit is not None), default=None)


def cpu_bounds(cgroups: Cgroups | None = None) -> str:
    """What keeps this process from using all CPUs of its host, in words; empty when nothing does."""
    present, allowed = os.cpu_count() or 1, len(os.sched_getaffinity(0))
    quota = cpu_quota(cgroups)
    if quota is not None and quota < allowed:
        return f"{quota:.3g} CPU{'' if quota == 1 else 's'} of quota on a {present}-core host"
    return f"may use {allowed} of {present} CPUs" if allowed < present else ""


def _quota_v2(folder: Path) -> float | None:
    fields = read(folder / "cpu.max").split()
    if len(fields) != 2 or fields[0] == "max":
        return None
    return _ratio(fields[0], fields[1])


def _quota_v1(folder: Path) -> float | None:
    return _ratio(read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None
