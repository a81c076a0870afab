"""In which order a claim looks at its lists, and how many messages it takes from each.

A list is what waits on one queue with one priority step. Steps are served strictly in order, queues within a step by
`queue_order_strategy`. Whoever is never reached that way gets `starvation_share` of what a worker takes. Everything is
counted in messages and carried from claim to claim, so claims of 1 share as claims of 500 do.

Used by every adapter: `Order.plan` says what to read before anybody knows what is there, the adapter carries that out
(lua/claim.lua on Redis, `carry_out` elsewhere), `Order.took` is told what came of it. A plan is only ever about which
messages are taken: nothing of it leaves the window empty while anything waits. One thread at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..core import log_events, logs
from ..core.errors import ConfigError
from ..core.settings_values import Converter, choice, nearest

logger = logging.getLogger("qworker.transports")

#: A queue and a priority step.
Place = tuple[str, int]

_STRATEGIES: Final = ("round_robin", "weighted", "sorted", "priority")
_STRICT: Final = ("sorted", "priority")
#: Sums of tenths are a little below the whole number that they stand for.
_HAIR: Final = 1e-9
#: Lists of which none had anything are not looked at again before so long: a look costs a claim 20 µs.
_LOOK_S: Final = 0.1


class Share(NamedTuple):
    """What one list may give at first, and its weight when others of its group leave something over."""

    place: Place
    quota: int
    weight: float


class Group(NamedTuple):
    """Lists that are read together. `budget`: how many messages they may give, 0 = what the claim still lacks."""

    budget: int
    shares: Sequence[Share]


class Taken(NamedTuple):
    """What a claim took: lists and counts in the order of reading, and which of them had no more."""

    runs: Sequence[tuple[Place, int]]
    ended: Collection[Place]


def weights(value: Any) -> dict[str, float]:
    """Converter of `queue_weights`."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a dict of queue names and weights, for example {'hipri': 5, 'default': 1}")
    for name, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise ValueError(f"must hold numbers above 0; that of {name!r} is {weight!r}")
    return {name: float(weight) for name, weight in value.items()}


def share(value: Any) -> float:
    """Converter of `starvation_share`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 0.5:
        raise ValueError("must be a number from 0 (strictly in order) to 0.5 (every second message)")
    return number


#: What the adapters' transport options say about order.
ORDER_OPTIONS: Final[Mapping[str, Converter]] = {
    "queue_order_strategy": choice(*_STRATEGIES),
    "queue_weights": weights,
    "starvation_share": share,
}


class Levels:
    """The lists of one consumer by level: each level is served before the next, the lists of one level in shares."""

    def __init__(self, levels: Sequence[Sequence[Place]]) -> None:
        self.all = levels
        self.of = {place: at for at, level in enumerate(levels) for place in level}
        self.below = [[place for level in levels[at + 1 :] for place in level] for at in range(len(levels))]
        self.places = [place for level in levels for place in level]
        #: With one list in each level there is nothing to share.
        self.is_plain = len(self.places) == len(levels)


class Order:
    """The order of one consumer. Weights alone mean the strategy `weighted`. Raises ConfigError if they do not fit.

    Hot path: with one queue of one priority, `plan` and `took` cost about 2 µs for each claim.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._weights: Mapping[str, float] = options.get("queue_weights") or {}
        self._strategy = options.get("queue_order_strategy") or ("weighted" if self._weights else "round_robin")
        self._share: float = options.get("starvation_share", 0.1)
        if self._weights and self._strategy != "weighted":
            raise ConfigError(
                f"broker_transport_options: queue_weights has no effect with queue_order_strategy={self._strategy!r}; "
                "use 'weighted', or leave the weights out"
            )
        self._within = _Fair(self._weights)
        self._starved = _Fair(self._weights)
        self._credit = 0.0  # messages that the lists below the frontier are owed
        self._frontier = 0  # the level that the last full claim ended in: nothing below it was reached
        self._look_at = 0.0
        self._looks = False  # whether they are thought to have something
        self._owed = self._limit = 0
        self._asked: tuple[str, ...] | None = None
        self._wanted: list[str] = []

    def queues(self, queues: Sequence[str]) -> Sequence[str]:
        """Return the queues, each once, in the order in which they are looked at. Warns of weights for other queues."""
        asked = tuple(queues)
        if self._asked != asked:
            self._asked, self._wanted = asked, self._arranged(list(dict.fromkeys(queues)))
        return self._wanted

    def levels(self, steps: Sequence[Sequence[Place]]) -> Levels:
        """Return the levels of lists that are given by step, in the order of `queues`."""
        if self._strategy in _STRICT:
            return Levels([[place] for step in steps for place in step])
        return Levels([step for step in steps if step])

    def plan(self, levels: Levels, limit: int) -> list[Group]:
        """Return what to read first, in this order, by a claim of up to `limit` messages; then all lists follow in
        theirs, as far as there is room. `took` has to be called next."""
        self._limit = limit
        self._frontier = min(self._frontier, len(levels.all) - 1)
        below = levels.below[self._frontier] if self._share and time.monotonic() >= self._look_at else ()
        self._looks = bool(below)
        self._owed = min(limit, int(self._credit + self._share * limit + _HAIR)) if below else 0
        groups = [Group(self._owed, self._starved.shares(below, self._owed))] if self._owed else []
        if not levels.is_plain:
            groups += [Group(0, self._within.shares(level, limit - self._owed)) for level in levels.all]
        return groups

    def took(self, levels: Levels, taken: Taken) -> Sequence[int]:
        """Count what the planned claim took; return the positions of its runs in the order to deliver them.

        That is the strict order: what was taken first because it was owed is not to run before what is more urgent.
        """
        runs, ended = taken
        if levels.is_plain and not self._owed and len(runs) == 1 and levels.of[runs[0][0]] <= self._frontier:
            self._frontier = levels.of[runs[0][0]]
            owes = self._looks and runs[0][0] not in ended
            self._credit = self._credit + self._share * runs[0][1] if owes else 0.0
            return (0,)
        return self._count(levels, runs, ended)

    def _arranged(self, wanted: list[str]) -> list[str]:
        strangers = [name + nearest(name, wanted) for name in self._weights if name not in wanted]
        if strangers and len(wanted) > 1:
            logs.say(
                logger,
                logging.WARNING,
                log_events.QUEUE_WEIGHTS_UNUSED,
                "queue_weights names queues that are not consumed here: {queues}",
                queues=", ".join(strangers),
            )
        return sorted(wanted) if self._strategy == "sorted" else wanted

    def _count(self, levels: Levels, runs: Sequence[tuple[Place, int]], ended: Collection[Place]) -> Sequence[int]:
        got: dict[Place, int] = {}
        for place, count in runs:
            got[place] = got.get(place, 0) + count
        self._count_owed(levels.below[self._frontier], got, ended)
        if not levels.is_plain:
            for level in levels.all:
                self._within.took(level, got, ended)
        if runs and self._owed < self._limit:
            self._frontier = levels.of[runs[-1][0]]
        return sorted(range(len(runs)), key=lambda run: levels.of[runs[run][0]])

    def _count_owed(self, below: Sequence[Place], got: Mapping[Place, int], ended: Collection[Place]) -> None:
        """Who has nothing waiting is owed nothing, and who got more than was owed owes nothing."""
        self._starved.took(below, got, ended)
        received = sum(got.get(place, 0) for place in below)
        credit = self._credit + self._share * sum(got.values()) - received
        nobody_waits = all(place in ended for place in below)
        self._credit = 0.0 if nobody_waits or not self._looks else max(0.0, credit)
        if nobody_waits and self._owed:
            self._look_at = time.monotonic() + _LOOK_S


class _Fair:
    """Shares among lists that count over time: who has had least for its weight comes next.

    `_had` is how many messages a list has had for each unit of its weight, beyond the one that has had least. A list
    that has nothing waiting saves nothing up for later.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._had: dict[Place, float] = {}

    def shares(self, places: Sequence[Place], count: int) -> list[Share]:
        """Divide `count` messages among `places`, who comes next first."""
        if len(places) == 1:
            return [Share(places[0], count, 1.0)]
        ordered = sorted(places, key=self._had_of)
        level = self._level(ordered, count)
        quotas = {p: max(0, int((level - self._had_of(p)) * self._weight(p) + _HAIR)) for p in ordered}
        for _ in range(count - sum(quotas.values())):
            behind = min(ordered, key=lambda p: self._had_of(p) + quotas[p] / self._weight(p))
            quotas[behind] += 1
        return [Share(place, quotas[place], self._weight(place)) for place in ordered]

    def took(self, places: Sequence[Place], got: Mapping[Place, int], ended: Collection[Place]) -> None:
        """Count what each of `places` has given."""
        if len(places) < 2:
            return
        had = {place: self._had_of(place) + got.get(place, 0) / self._weight(place) for place in places}
        least = min((had[place] for place in places if place not in ended), default=float("inf"))
        for place in places:
            self._had[place] = max(0.0, had[place] - least)

    def _level(self, ordered: Sequence[Place], count: int) -> float:
        """What everybody who gets something has had in the end, when `count` messages are poured in, lowest first."""
        level = weight = poured = 0.0
        for place in ordered:
            if weight and self._had_of(place) >= level:
                break
            weight += self._weight(place)
            poured += self._had_of(place) * self._weight(place)
            level = (count + poured) / weight
        return level

    def _had_of(self, place: Place) -> float:
        return self._had.get(place, 0.0)

    def _weight(self, place: Place) -> float:
        return self._weights.get(place[0], 1.0)


def carry_out(
    groups: Sequence[Group], levels: Levels, limit: int, read: Callable[[Place, int], tuple[int, bool]]
) -> Taken:
    """Read as planned. The same as lua/claim.lua does on the server.

    `read(place, count)` takes up to `count` and returns how many, and whether the list has ended; one that gives fewer
    although it has not ended has no more for this claim.
    """
    reading = _Reading(read)
    for group in groups:
        limit -= reading.group(group, limit)
    for place in levels.places:
        limit -= reading.take(place, limit)
    return Taken(reading.runs, reading.ended)


class _Reading:
    """One claim: what it has read so far."""

    def __init__(self, read: Callable[[Place, int], tuple[int, bool]]) -> None:
        self._read = read
        self.runs: list[tuple[Place, int]] = []
        self.ended: set[Place] = set()

    def group(self, group: Group, limit: int) -> int:
        """First the quotas, in proportion when there is less to give than was planned; then, while somebody has more,
        what is left over by weight."""
        budget = left = min(group.budget or limit, limit)
        planned = max(budget, sum(share.quota for share in group.shares))
        wants = [(share, share.quota * budget // planned) for share in group.shares] if budget else []
        while wants and left:
            hungry = []
            for share, want in wants:
                got = self.take(share.place, min(want, left))
                left -= got
                if got == want and share.place not in self.ended:
                    hungry.append(share)
            total = sum(share.weight for share in hungry)
            wants = [(share, int(left * share.weight / total)) for share in hungry]
            if wants and not any(want for _, want in wants):
                wants[0] = (hungry[0], 1)
        return budget - left

    def take(self, place: Place, want: int) -> int:
        """Read up to `want` from one list; return how many there were."""
        if want <= 0 or place in self.ended:
            return 0
        got, has_ended = self._read(place, want)
        if got:
            self.runs.append((place, got))
        if has_ended:
            self.ended.add(place)
        return got
