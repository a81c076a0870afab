"""The worker as its companions see it: a snapshot per question. Made by the master (see `core/companion.py`)."""

from __future__ import annotations

import math
import os

from ..core.clock import Clock
from ..core.companion import About, ChildNow, QueueSight, Status
from ..core.tally import Tally
from ..pool import SlotTable
from .consumer import Consumer
from .crew import Crew, Slot
from .generations import Generations
from .lifecycle import Lifecycle


class View:
    """Reads what master and consumer own, without locks: each number is right, together they are a moment apart."""

    def __init__(self, node: str, life: Lifecycle, generations: Generations, table: SlotTable, clock: Clock) -> None:
        self._table = table
        self._about = About()
        self._node = node
        self._life = life
        self._generations = generations
        self._clock = clock
        self._started_at = clock.monotonic()
        self._crew: Crew | None = None
        self._consumer: Consumer | None = None
        self.is_ready = False

    def sees(self, crew: Crew, consumer: Consumer, about: About) -> None:
        """The application is loaded: these are the parts to look at."""
        self._about = about
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
            self._consumer.notices.is_awaited = True

    def about(self) -> About:
        """Who the worker is. Any thread."""
        return self._about

    def children(self) -> list[ChildNow]:
        """Every child, by slot. Any thread."""
        return [self._child(slot) for slot in self._crew.slots()] if self._crew else []

    def _child(self, slot: Slot) -> ChildNow:
        running = self._table.read(slot.index)
        if running is not None:
            for_s = max(0.0, self._clock.monotonic() - running.started)
            return ChildNow(slot.index + 1, slot.pid, "busy", running.text, for_s)
        state = "starting" if not slot.is_ready else "leaving" if slot.is_leaving else "idle"
        return ChildNow(slot.index + 1, slot.pid, state)

    def tally(self) -> Tally:
        """What the worker has done so far. Any thread."""
        return self._consumer.tally if self._consumer else Tally()

    def last_fetch_age_s(self) -> float | None:
        """How long ago the broker last answered a fetch. Any thread."""
        return self._consumer.last_fetch_age_s() if self._consumer else None

    def look_at_queues(self, wait_s: float) -> QueueSight | None:
        """What waits on the queues, or None. Any thread but the consumer's."""
        return self._consumer.sight.ask(wait_s) if self._consumer else None
