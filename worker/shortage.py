"""When the system allows no further process or descriptor: say so once, and ask again a moment later.

Kept by the crew (`worker/crew.py`), which asks for children. Owned by the master's main thread.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import resource
from typing import Final

from ..core import log_events, logs
from ..core.clock import Clock
from ..pool import Channel

logger = logging.getLogger("qworker.worker")

AGAIN_S: Final = 1.0
#: Descriptors that children leave to connections, log files and requests.
SPARE_DESCRIPTORS: Final = 32


class Shortage:
    """Whether there is one, and until when nobody is asked for a child."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ask_at = math.inf
        self._is_known = False

    def next_at(self) -> float:
        """When `may_ask` turns true again; infinity when it is."""
        return self._ask_at

    def may_ask(self) -> bool:
        """Whether to ask for children now."""
        if self._clock.monotonic() >= self._ask_at:
            self._ask_at = math.inf
        return self._ask_at == math.inf

    def begins(self, why: str | None) -> None:
        """A child could not be made."""
        self._ask_at = self._clock.monotonic() + AGAIN_S
        if self._is_known:
            return
        self._is_known = True
        logs.say(
            logger,
            logging.ERROR,
            log_events.NO_MORE_CHILDREN,
            "no child can be started ({why}): tried again each second, those that there are go on; look at the limits "
            "of processes, descriptors and memory",
            why=why or "the system refuses",
        )

    def is_over(self) -> None:
        """A child has been made."""
        if self._is_known:
            self._is_known = False
            logs.say(logger, logging.INFO, log_events.CHILDREN_AGAIN, "children can be started again")


def channel_if_there_is_room(slot: int, serial: int) -> Channel:
    """Make a child's channel. Raises OSError when too few descriptors would be left for everything else."""
    channel = Channel(slot, serial)
    # The kernel gives the lowest number that is free, so a high one means that few are.
    if max(channel.child_ends()) < resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS:
        return channel
    channel.close()
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
