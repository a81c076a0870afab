"""How kombu lays out queues in Redis: list names, priority steps, bindings. Used by the Redis adapter only.

A *list* here is the name without the global prefix, a *key* the name with it. Priority 0 is served first; a priority
between two steps belongs to the lower one.
"""

from __future__ import annotations

import json
from bisect import bisect
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one configuration: transport options `global_keyprefix`, `sep`, `priority_steps`."""

    prefix: str
    sep: str
    steps: tuple[int, ...]

    def list_of(self, queue: str, priority: int = 0) -> str:
        """The list on which a message of this priority waits."""
        return self.list_at(queue, self.steps[max(0, bisect(self.steps, priority) - 1)])

    def list_at(self, queue: str, step: int) -> str:
        """The list of one priority step."""
        return f"{queue}{self.sep}{step}" if step else queue

    def queue_of(self, name: str) -> str:
        """The queue that a list belongs to."""
        queue, _, step = name.rpartition(self.sep)
        return queue if queue and step.isdecimal() and int(step) in self.steps else name

    def keys_of(self, queue: str) -> list[str]:
        """The keys of all lists of a queue, most urgent first."""
        return [self.prefix + self.list_at(queue, step) for step in self.steps]

    def binding(self, queue: str) -> str:
        """What stands in the binding sets: routing key, pattern (empty) and queue."""
        return self.sep.join((queue, "", queue))

    def binding_keys(self, queue: str) -> tuple[str, str]:
        """The set that every kombu reads, and the one by which kombu 5.7 protects it from its sweep."""
        return f"{self.prefix}_kombu.binding.{queue}", f"{self.prefix}_kombu.binding_permanent.{queue}"


def entry_tail(queue: str) -> str:
    """What follows the envelope in kombu's entry `[envelope, exchange, routing key]`.

    The exchange is the nameless one, which every Celery version can restore without a binding.
    """
    return f', "", {json.dumps(queue)}]'
