"""Which lists a claim looks at, and how its reply becomes deliveries. Used by redis.py; the order is order.py's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import Delivery
from .order import Order, Place, Taken
from .redis_names import Names, entry_tail


class ClaimPlan:
    """What stays the same from claim to claim for one set of queues, made once.

    `keys` are the lists as the claim script wants them: all queues of the first step, then all of the next.
    """

    def __init__(self, names: Names, queues: Sequence[str], order: Order) -> None:
        self._order = order
        wanted = order.queues(queues)
        # A list that two queue names lead to is looked at once: reading it twice would deliver it twice.
        places: dict[str, Place] = {}
        for step in names.steps:
            for queue in wanted:
                places.setdefault(names.list_at(queue, step), (queue, step))
        self._places: list[Place] = list(places.values())
        self._position = {place: at for at, place in enumerate(self._places, 1)}
        self._levels = order.levels([[p for p in self._places if p[1] == step] for step in names.steps])
        self._tails = tuple(entry_tail(queue) for queue, _ in self._places)
        self._suffixes = [f":{len(tail)}:{name}" for name, tail in zip(places, self._tails, strict=True)]
        self.keys = tuple(names.prefix + name for name in places)

    def layout(self, limit: int) -> list[str | int]:
        """The script's arguments for the next claim: what depends on the lists and their order."""
        args: list[str | int] = [*self._tails]
        for budget, shares in self._order.plan(self._levels, limit):
            args += (budget, len(shares))
            for place, quota, weight in shares:
                args += (self._position[place], quota, str(weight))
        return args

    def deliveries(self, reply: Any, token: str, before: int) -> list[Delivery]:
        """Make deliveries of the script's reply, most urgent first. `before` is the number before the first tag's."""
        runs, raws, crashed, ended = reply
        found: list[list[Delivery]] = []
        start = 0
        for at in range(0, len(runs), 2):
            place, stop = runs[at] - 1, start + runs[at + 1]
            queue, suffix = self._places[place][0], f":0{self._suffixes[place]}"
            numbers = range(before + start + 1, before + stop + 1)
            # Hot path: about 0.4 µs for each message.
            found.append(
                [
                    Delivery(f"{token}-{number}{suffix}", queue, raw)
                    for number, raw in zip(numbers, raws[start:stop], strict=True)
                ]
            )
            start = stop
        if crashed:
            _count_crashes([delivery for run in found for delivery in run], crashed)
        counts = [(self._places[runs[at] - 1], runs[at + 1]) for at in range(0, len(runs), 2)]
        ordered = self._order.took(self._levels, Taken(counts, [self._places[at - 1] for at in ended]))
        return found[0] if len(found) == 1 else [delivery for run in ordered for delivery in found[run]]


def _count_crashes(deliveries: Sequence[Delivery], crashed: Sequence[int]) -> None:
    """`crashed` holds the positions of those that have killed a child, each with how many; the tags say so too."""
    for at in range(0, len(crashed), 2):
        delivery, crashes = deliveries[crashed[at] - 1], crashed[at + 1]
        head, rest = delivery.tag.split(":0:", 1)
        delivery.tag, delivery.crashes = f"{head}:{crashes}:{rest}", crashes
