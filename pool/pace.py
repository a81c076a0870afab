"""How far ahead to work, from how long tasks take: how many messages wait in a channel, how many are held.

Pure arithmetic, owned by the consumer thread. Long tasks travel alone (nothing waits behind them); for short ones the
round trips between master, child and broker are spread over many messages.
"""

from __future__ import annotations

from typing import Final

#: Work queued in one child's channel: long enough to hide a turn of the consumer, short enough to take back at once.
CHANNEL_S: Final = 0.010
MAX_DEPTH: Final = 128
#: Work held per child in all: hides one round trip to the broker.
WINDOW_S: Final = 0.050
MAX_WINDOW: Final = 512
#: What a message costs a child besides the task itself; keeps the division sane for empty tasks.
_FLOOR_S: Final = 20e-6


class Pace:
    """The running estimate. Quick to believe that tasks are long, slow to believe that they are short.

    `multiplier` is messages held per child when tasks are long or unknown; with `fixed` it is never exceeded.
    With `fair` nothing ever waits behind another message in a child's channel.
    """

    def __init__(self, multiplier: int = 4, *, fixed: bool = False, fair: bool = False) -> None:
        self._multiplier = max(1, multiplier)
        self._fixed = fixed
        self._fair = fair
        self._busy_s = WINDOW_S  # unknown tasks are taken for long ones

    def saw(self, busy_s: float) -> None:
        """One run took `busy_s` seconds."""
        share = 0.5 if busy_s > self._busy_s else 0.1
        self._busy_s += share * (max(busy_s, _FLOOR_S) - self._busy_s)

    def depth(self) -> int:
        """How many messages one child may have, the running one included: 1 for long tasks."""
        if self._fair or self._busy_s >= CHANNEL_S:
            return 1
        depth = max(2, min(MAX_DEPTH, int(CHANNEL_S / self._busy_s)))
        return min(depth, self._multiplier) if self._fixed else depth

    def window(self, children: int) -> int:
        """How many messages to hold in all."""
        if self._fixed:
            return self._multiplier * children
        return max(self._multiplier, min(MAX_WINDOW, int(WINDOW_S / self._busy_s))) * children
