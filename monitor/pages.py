"""What is behind each path: the probes in one word, metrics, status. Called by a request's thread.

Liveness is about this process alone: its loops turn. It never depends on the broker, or an outage of the broker would
have every worker killed that waits for its return.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from ..core.companion import Status, Watched
from .memory import MemoryReader
from .metrics import CONTENT_TYPE, exposition
from .report import report

Answer = tuple[int, str, bytes]

_TEXT: Final = "text/plain; charset=utf-8"
#: What a client without a token may ask.
PROBES: Final = frozenset({"/livez", "/readyz", "/startupz"})
_INDEX: Final = "\n".join(
    (
        "/livez     whether the worker's loops turn",
        "/readyz    whether it runs and the broker is in reach",
        "/startupz  whether it has been ready once",
        "/metrics   for Prometheus",
        "/status    JSON",
        "",
    )
)


class Pages:
    """The pages about one worker."""

    def __init__(self, worker: Watched) -> None:
        self._worker = worker
        self._memory = MemoryReader()
        self._pages: dict[str, Callable[[], Answer]] = {
            "/": lambda: (200, _TEXT, _INDEX.encode()),
            "/livez": lambda: _probe(trouble_of_life(worker.status())),
            "/readyz": lambda: _probe(trouble_of_readiness(worker.status())),
            "/startupz": lambda: _probe("" if worker.status().is_ready else "not ready yet"),
            "/metrics": lambda: (200, CONTENT_TYPE, exposition(worker, self._memory).encode("utf-8", "replace")),
            "/status": lambda: (200, "application/json", _json(report(worker, self._memory))),
        }

    def answer(self, path: str) -> Answer:
        """The page of this path: status, content type, body."""
        page = self._pages.get(path)
        return page() if page is not None else (404, _TEXT, b"there is no such page\n")


def trouble_of_life(status: Status) -> str:
    """Why the worker should be killed; empty if it should not."""
    has_ended = status.phase == "stopped"  # and so has the loop; what is left is to close things
    if status.is_loaded and not status.is_consuming and not has_ended:
        return "the consumer's loop does not turn, or hears of no message"
    return ""


def trouble_of_readiness(status: Status) -> str:
    """Why the worker does not take messages now; empty if it does."""
    if trouble := trouble_of_life(status):
        return trouble
    if status.phase != "running":
        return status.phase
    return "" if status.is_broker_up else "the broker is out of reach"


def _probe(trouble: str) -> Answer:
    return (503, _TEXT, f"{trouble}\n".encode()) if trouble else (200, _TEXT, b"ok\n")


def _json(data: object) -> bytes:
    return (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace")
