"""What the master works with once the application is loaded: the children, their upkeep, the consumer's thread.

Made by the master (`worker/master.py`) from the plan that it is given then, all at once: whoever has one part has all
of them. Used by those that act in the master's stead (`worker/news.py`, `worker/pool_signals.py`). Owned by the main
thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.clock import Clock
from ..pool import SlotTable
from ..signals import SignalPipe
from .crew import Crew
from .hang import Hang
from .image import Image
from .lifeline import Lifeline
from .mailbox import Mailbox
from .phases import Phase
from .plan import Plan
from .upkeep import Upkeep


@dataclass(frozen=True, slots=True)
class Works:
    """The parts that a worker has from its loading to its end."""

    plan: Plan
    crew: Crew
    upkeep: Upkeep
    lifeline: Lifeline

    @classmethod
    def of(cls, plan: Plan, size: int, mailbox: Mailbox, clock: Clock) -> Works:
        """Parts for so many children. Nothing runs yet: `lifeline.start` begins."""
        crew = Crew(size, mailbox, clock)
        upkeep = Upkeep(
            crew,
            mailbox,
            clock,
            max_memory_kib=plan.max_memory_kib,
            max_memory_hard_kib=plan.max_memory_hard_kib,
            autoscale=plan.autoscale,
            load=plan.consumer.load,
        )
        return cls(plan, crew, upkeep, Lifeline(plan.consumer, clock, plan.deaf_timeout_s))

    def next_at(self, *, is_stopping: bool) -> float:
        """When to look after them although nothing has come. A worker that stops asks for no more children."""
        children_at = math.inf if is_stopping else self.crew.next_at()
        return min(self.upkeep.next_at(), self.lifeline.next_at(), children_at)

    def hang(
        self, phase: Phase, spawners: Sequence[int], table: SlotTable, pipe: SignalPipe, image: Image | None
    ) -> Hang:
        """What has to be known to leave the consumer's thread behind, now that it hangs."""
        return Hang(
            phase,
            since_s=self.lifeline.timeout_s,
            is_connecting=self.lifeline.is_connecting,
            spawners=spawners,
            children=self.crew.processes(),
            are_all_known=self.crew.are_known_that_run(table),
            size=self.crew.size,
            owner=self.plan.owner,
            give_back=self.plan.give_back,
            pipe=pipe,
            image=image,
        )
