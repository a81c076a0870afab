"""What the master's side asks of a spawner: `pool.SpawnerHandle`, or a fake in tests.

Used by the crew and the generations, which share the spawners between them.
"""

from __future__ import annotations

from typing import Any, Protocol


class Spawner(Protocol):
    """One process that forks children."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def fileno(self) -> int:
        """For `select`."""
        ...

    def fork(self, slot: int, *fds: int) -> bool:
        """Ask for a child; False when the spawner has gone."""
        ...

    def signal(self, slot: int, number: int) -> bool:
        """Signal a slot's child, with SIGKILL its whole process group."""
        ...

    def kill(self) -> None:
        """Kill it; its children go with it."""
        ...

    def reopen_logs(self) -> bool:
        """Have it and its children open their log files anew."""
        ...

    def reports(self) -> list[dict[str, Any]] | None:
        """What it has reported since the last call; None once it has gone."""
        ...

    def close(self, timeout_s: float = ...) -> None:
        """End it, by force after `timeout_s`."""
        ...
