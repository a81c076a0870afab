"""The status of a worker as plain data: what `/status` answers and `qworker status` shows. Durations in seconds."""

from __future__ import annotations

import time
from typing import Any

from ..core.companion import ChildNow, Watched
from ..core.secrets import scrub
from .memory import Memory, MemoryReader
from .metrics import LOOK_S, slot_counts


def report(worker: Watched, memory: MemoryReader) -> dict[str, Any]:
    """Everything worth knowing about this worker now; no secrets."""
    from .. import __version__

    status, about, children, tally = worker.status(), worker.about(), worker.children(), worker.tally()
    readings = memory.of([child.pid for child in children if child.pid])
    return {
        "node": status.node,
        "pid": status.pid,
        "version": __version__,
        "app": about.app,
        "phase": status.phase,
        "ready": status.is_ready,
        "stopping": status.is_stopping,
        "consuming": status.is_consuming,
        "reloading": status.is_reloading,
        "reload_trouble": scrub(status.reload_trouble),
        "uptime_s": round(status.uptime_s, 3),
        "deadline_in_s": None if status.deadline_in_s is None else round(status.deadline_in_s, 3),
        "broker": {
            "url": about.broker,
            "up": status.is_broker_up,
            "trouble": scrub(status.broker_trouble),
            "last_fetch_age_s": _rounded(worker.last_fetch_age_s()),
        },
        "results": about.results,
        "queues": _queues(worker),
        "size": status.size,
        "slots": slot_counts(children),
        "held": status.held,
        "children": [_child(child, readings.get(child.pid)) for child in children],
        "tasks": tally.endings(),
        "restarts": tally.restarts(),
        "recovered": tally.recoveries(),
        "dead_letters": sum(tally.dead().values()),
    }


def _queues(worker: Watched) -> dict[str, dict[str, float | None]]:
    sight = worker.look_at_queues(LOOK_S)
    found: dict[str, dict[str, float | None]] = {}
    for queue in worker.about().queues:
        depth = None if sight is None else sight.depths.get(queue)
        age_s = None if sight is None else sight.oldest_age_s.get(queue)
        found[queue] = {"depth": depth, "oldest_age_s": _rounded(age_s)}
    return found


def _child(child: ChildNow, memory: Memory | None) -> dict[str, Any]:
    task_id, _, task = child.runs.partition(" ")
    is_busy = bool(child.runs)
    return {
        "slot": child.slot,
        "pid": child.pid,
        "state": child.state,
        "id": task_id or None,
        "task": task or None,
        "running_s": round(child.runs_for_s, 3) if is_busy else None,
        "since": round(time.time() - child.runs_for_s, 3) if is_busy else None,
        "memory_bytes": None if memory is None else memory._asdict(),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
