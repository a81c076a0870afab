"""What the master looks at about once a second: the children's memory, and how many children there should be.

Owned by the master's main thread. Sleeps for ever when neither a memory limit nor autoscaling was asked for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from ..core import log_events, logs
from ..core.clock import Clock
from ..pool import MAX_SLOTS
from .autoscale import Autoscale
from .crew import Crew
from .mailbox import Mailbox
from .memory import MemoryWatch

logger = logging.getLogger("qworker.worker")

EVERY_S = 1.0


class Upkeep:
    """Timers around MemoryWatch and Autoscale. Limits are in KiB, 0 = none; `load` is `Consumer.load`."""

    def __init__(
        self,
        crew: Crew,
        mailbox: Mailbox,
        clock: Clock,
        *,
        max_memory_kib: int = 0,
        max_memory_hard_kib: int = 0,
        autoscale: Autoscale | None = None,
        load: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._crew = crew
        self._mailbox = mailbox
        self._clock = clock
        self._hard_kib = max_memory_hard_kib
        self._memory = MemoryWatch(max_memory_kib, max_memory_hard_kib, self._on_much, self._on_too_much)
        self._autoscale = autoscale
        self._load = load
        self._at = clock.monotonic() if self._memory.is_needed or autoscale is not None else math.inf

    def next_at(self) -> float:
        """When `tend` has something to do."""
        return self._at

    def is_born(self, serial: int, kib: int | None) -> None:
        """A child is ready, and has said what it weighed before its first task."""
        if self._memory.is_needed and kib is not None:
            self._memory.is_born(serial, kib)

    def tend(self, *, may_scale: bool) -> None:
        """Sample memory and adjust the size of the pool, if it is time."""
        now = self._clock.monotonic()
        if now < self._at:
            return
        self._at = now + EVERY_S
        if self._memory.is_needed:
            self._memory.sample(self._crew.pids())
        if self._autoscale is not None and may_scale:
            self._scale(self._autoscale, now)

    def grow(self, size: int) -> None:
        """So many children from now on, more than before."""
        if size > MAX_SLOTS:
            logs.say(
                logger,
                logging.INFO,
                log_events.POOL_AT_LIMIT,
                "{children} children are the most that one worker can have: no more",
                children=MAX_SLOTS,
            )
            return
        self._crew.size = size
        logs.say(logger, logging.INFO, log_events.POOL_GROWS, "the pool grows to {children} children", children=size)

    def shrink(self) -> None:
        """One child fewer: the idlest one leaves."""
        if self._crew.size == 1:
            logs.say(logger, logging.INFO, log_events.POOL_AT_LIMIT, "one child is left: no fewer")
            return
        self._crew.size -= 1
        logs.say(
            logger,
            logging.INFO,
            log_events.POOL_SHRINKS,
            "the pool shrinks to {children} children",
            children=self._crew.size,
        )

    def _scale(self, autoscale: Autoscale, now: float) -> None:
        wanted = autoscale.wanted(self._crew.size, *self._load(), now)
        if wanted > self._crew.size:
            self.grow(wanted)
        elif wanted < self._crew.size:
            self.shrink()

    def _on_much(self, serial: int, kib: int) -> None:
        if self._crew.replace(serial, "max_memory"):
            child = self._crew.index_of(serial) + 1
            logs.say(
                logger,
                logging.INFO,
                log_events.CHILD_RECYCLED,
                "child {child} has {kib} KiB of memory of its own: it is replaced after its task",
                child=child,
                kib=kib,
            )

    def _on_too_much(self, serial: int, kib: int) -> None:
        self._mailbox.post("condemn", serial=serial, kib=kib, limit_kib=self._hard_kib)
