"""How many CPUs this process may use: the default for `--concurrency`. Called by the command line.

A container is usually limited by a quota of its cgroup, which `os.cpu_count` knows nothing of: on a 64-core host with
2 CPUs of quota 64 children would fight for 2 cores. Sources: sched_getaffinity(2), cgroups(7),
Documentation/admin-guide/cgroup-v2.rst (cpu.max).
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_FS = Path("/sys/fs/cgroup")
_PROC_CGROUP = Path("/proc/self/cgroup")


def usable_cpus(*, cgroup_fs: Path = _CGROUP_FS, proc_cgroup: Path = _PROC_CGROUP) -> int:
    """Return the smaller of the CPU affinity and the cgroup quota (rounded up), at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup_fs, proc_cgroup)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _quota(cgroup_fs: Path, proc_cgroup: Path) -> float | None:
    """The tightest quota from our own cgroup up to the root, in CPUs, None when nothing limits us."""
    limits = []
    for controllers, path in _memberships(proc_cgroup):
        if not controllers:
            limits += [_quota_v2(folder) for folder in _upwards(cgroup_fs, path)]
        elif "cpu" in controllers:
            for mount in ("cpu", "cpu,cpuacct"):
                limits += [_quota_v1(folder) for folder in _upwards(cgroup_fs / mount, path)]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _memberships(proc_cgroup: Path) -> list[tuple[list[str], str]]:
    """(controllers, path) for each line `id:controllers:path`; version 2 names no controllers."""
    found = []
    for line in _read(proc_cgroup).splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            found.append((parts[1].split(",") if parts[1] else [], parts[2]))
    return found


def _upwards(root: Path, path: str) -> list[Path]:
    """Our folder and its parents up to `root`. In a container the path may be the host's; then `root` is our folder."""
    folder = root / path.strip("/")
    folders = [folder]
    while folder != root and root in folder.parents:
        folder = folder.parent
        folders.append(folder)
    return folders


def _quota_v2(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    if len(fields) != 2 or fields[0] == "max":
        return None
    return _ratio(fields[0], fields[1])


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
