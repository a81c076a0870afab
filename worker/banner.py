"""What an operator sees first: who runs, from where to where, with how many children and which tasks."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from ..core.cpus import cpu_bounds
from ..core.memory_limit import memory_limit, mib
from ..core.urls import redact


def banner(version: str, node: str, config: dict[str, Any], size: int) -> str:
    """The banner, without secrets (P10)."""
    allowed = memory_limit()
    conf = config["conf"]
    rows = [
        ("app", config["app"]),
        ("broker", redact(conf["broker_url"])),
        ("results", redact(conf["result_backend"]) if conf.get("result_backend") else "disabled"),
        ("concurrency", f"{size} ({'; '.join(filter(None, ('prefork', cpu_bounds())))})"),
        *([("memory", f"{mib(allowed)} (cgroup)")] if allowed is not None else []),
        ("queues", ", ".join(config["queues"])),
        ("tasks", _tasks(config["tasks"])),
    ]
    head = f"qworker {version} {node} (pid {os.getpid()}, Python {platform.python_version()})"
    return "\n".join([head, *(f"  {name + ':':<13}{value}" for name, value in rows)])


def _tasks(names: Sequence[str], most: int = 8) -> str:
    shown = [name for name in names if not name.startswith(("qworker.", "celery."))]
    if not shown:
        return "none"
    more = f", and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
