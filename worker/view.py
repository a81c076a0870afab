"""The worker as its companions see it: a snapshot per question. Made by the master (see `core/companion.py`)."""

from __future__ import annotations

import math
import os

from ..core.clock import Clock
from ..core.companion import Status
from .consumer import Consumer
from .crew import Crew
from .generations import Generations
from .lifecycle import Lifecycle


class View:
    """Reads what master and consumer own, without locks: each number is right, together they are a moment apart."""

    def __init__(self, node: str, life: Lifecycle, generations: Generations, clock: Clock) -> None:
        self._node = node
        self._life = life
        self._generations = generations
        self._clock = clock
        self._started_at = clock.monotonic()
        self._crew: Crew | None = None
        self._consumer: Consumer | None = None
        self.is_ready = False

    def sees(self, crew: Crew, consumer: Consumer) -> None:
        """The application is loaded: these are the parts to look at."""
        self._crew = crew
        self._consumer = consumer

    def status(self) -> Status:
        """The worker now. Any thread."""
        now = self._clock.monotonic()
        consumer, deadline = self._consumer, self._life.deadline
        busy, held = consumer.load() if consumer else (0, 0)
        trouble = consumer.broker_trouble if consumer else ""
        return Status(
            node=self._node,
            pid=os.getpid(),
            phase=self._life.phase.value,
            is_loaded=consumer is not None,
            is_ready=self.is_ready,
            is_reloading=self._generations.is_reloading,
            reload_trouble=self._generations.trouble,
            is_stopping=self._life.is_stopping,
            is_broker_up=trouble is None,
            broker_trouble=trouble or "",
            is_consuming=consumer is not None and consumer.is_consuming(),
            uptime_s=now - self._started_at,
            deadline_in_s=None if deadline == math.inf else max(0.0, deadline - now),
            size=self._crew.size if self._crew else 0,
            children=len(self._crew.pids()) if self._crew else 0,
            busy=busy,
            held=held,
        )

    def rouse(self) -> None:
        """Have the master turn, once, when the next message comes or the broker goes. Any thread."""
        if self._consumer is not None:
            self._consumer.is_awaited = True
