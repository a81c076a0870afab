"""How many children a worker should have, from how busy they are. Pure; asked by the master about once a second.

Grows at once when work waits and nobody is free; shrinks by one when somebody has been free for a while, and only idle
children ever leave (`Consumer`, shrink).
"""

from __future__ import annotations

from typing import Final

#: How long somebody must have been free before the pool shrinks by one.
KEEP_S: Final = 10.0


class Autoscale:
    """Keeps the size between `least` and `most`; with both equal it never changes anything."""

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most
        self._free_since: float | None = None

    def wanted(self, size: int, busy: int, waiting: int, now: float) -> int:
        """Return the size that the pool should have: `busy` children work, `waiting` messages are in no child."""
        if busy < size:
            return self._shrunk(size, now)
        self._free_since = None
        return max(self.least, min(self.most, size + waiting))

    def _shrunk(self, size: int, now: float) -> int:
        if self._free_since is None:
            self._free_since = now
        if size <= self.least or now - self._free_since < KEEP_S:
            return max(size, self.least)
        self._free_since = now
        return size - 1
