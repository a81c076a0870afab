"""Sees that a spawner which owes a child has come to a halt: a fork handler of the application may wait for ever.

Kept by the generations (`worker/generations.py`). Owned by the master's main thread. Looks are counted, not seconds:
after a pause of the whole process the spawner has its turn before it is judged.
"""

from __future__ import annotations

import math
from typing import Final

from ..core.clock import Clock

EVERY_S: Final = 5.0
LOOKS: Final = 6


class Vigil:
    """Over the spawner that is asked for children."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._look_at = math.inf
        self._silent = 0

    def next_at(self) -> float:
        """When to call `is_over` again."""
        return self._look_at

    def hears(self) -> None:
        """The spawner has said something."""
        self._silent = 0

    def is_over(self, *, owes: bool) -> bool:
        """Whether it has said nothing for all looks; `owes`: whether there is anything that it has to say."""
        now = self._clock.monotonic()
        if not owes or self._look_at == math.inf:
            self._look_at, self._silent = (now + EVERY_S if owes else math.inf), 0
        elif now >= self._look_at:
            self._look_at = now + EVERY_S
            self._silent += 1
        return self._silent >= LOOKS
