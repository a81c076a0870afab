"""Whether the children's memory limits fit into what the kernel allows. Called at the start of a worker, and by doctor.

Where they do not, the kernel kills before the worker would recycle: a crash of a task that needed none, and where the
container is killed as a whole (memory.oom.group), of all that run. The worker only says so. It derives no limit of its
own from the cgroup's: a child above a limit is replaced or killed, and nobody can know from the cgroup alone how much
of it is meant for the children's tasks, for programs that they start, or for another process of the same container.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.memory_limit import mib


def overcommitment(children: int, conf: Mapping[str, Any], limit: int | None) -> str:
    """What to tell an operator whose `children` may have more memory than `limit` bytes; empty when all is well."""
    name, kib = _most(conf)
    together = children * kib * 1024
    if limit is None or together < limit:
        return ""
    return (
        f"{children} children that may have {mib(kib * 1024)} each ({name}) need {mib(together)}, and the cgroup "
        f"allows {mib(limit)}: the kernel would kill before the limit is reached; lower --concurrency or {name}"
    )


def _most(conf: Mapping[str, Any]) -> tuple[str, int]:
    """The limit that a child cannot pass, else the one that it does not keep for long; 0 KiB without any."""
    hard, soft = conf["worker_max_memory_hard"] or 0, conf["worker_max_memory_per_child"] or 0
    return ("--max-memory-hard", hard) if hard else ("--max-memory-per-child", soft)
