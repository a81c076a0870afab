"""A storm: the load flows, the fleet is kept at size, something strikes now and then; then peace, until all is done."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import redis

from ..waiting import wait_until
from .fleet import Fleet
from .load import Load
from .office import Office

#: So many messages wait at most: what is published in one go flows past the faults.
BACKLOG = 150
_LOOK_S = 0.1


def storm(
    office: Office,
    fleet: Fleet,
    load: Load,
    strike: Callable[[], object],
    rng: random.Random,
    *,
    every_s: float,
    most: int,
    least: int | None = None,
    backlog: int = BACKLOG,
) -> int:
    """Call `strike` about each `every_s`, at `most` so often, while the load flows; returns how often.

    A load that ends too early goes on until the `least` of strikes have come (None: half of the most).
    """
    struck, least = 0, (most + 1) // 2 if least is None else least
    next_strike = time.monotonic() + rng.expovariate(1 / every_s)
    look_at = 0.0
    while True:
        fleet.turn()
        now = time.monotonic()
        if now >= look_at:
            waiting = waiting_in(office)
            if load.is_out and waiting < backlog / 10 and struck >= least:
                return struck
            load.publish(backlog - waiting, beyond=struck < least)
            look_at = time.monotonic() + _LOOK_S
        if now >= next_strike and struck < most:
            struck += strike() is not False
            next_strike = time.monotonic() + rng.expovariate(1 / every_s)
        time.sleep(0.01)


def drain(office: Office, fleet: Fleet, limit_s: float = 40.0) -> None:
    """Wait until all is settled, or for so long: the judge then says what is left, and where."""

    def settled() -> bool:
        fleet.turn()
        try:
            return not office.left()
        except redis.RedisError:
            return False

    try:
        wait_until(settled, "everything is settled", limit_s)
    except AssertionError:
        pass


def waiting_in(office: Office) -> int:
    """How many messages wait; many when nobody can tell, so that nothing is published into the void."""
    try:
        return list(office.where().values()).count("ready")
    except redis.RedisError:
        return BACKLOG - 5
