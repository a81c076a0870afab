"""How much the chaos tests do, and with which dice. The same scenarios run short (ordinary tests) and long (by name).

`QWORKER_CHAOS=long` makes them long. `QWORKER_CHAOS_SEED` repeats the dice of an earlier run; each scenario prints its
seed, so that a failure can be repeated (processes keep a will of their own: the faults repeat, their instants nearly).
"""

from __future__ import annotations

import os
import random
from typing import TypeVar

IS_LONG = os.environ.get("QWORKER_CHAOS") == "long"
T = TypeVar("T")


def scaled(short: T, long: T) -> T:
    """The value for this kind of run."""
    return long if IS_LONG else short


def new_seed() -> int:
    """The seed that the environment asks for, or another one each time."""
    wanted = os.environ.get("QWORKER_CHAOS_SEED")
    return int(wanted) if wanted else random.SystemRandom().randrange(10**6)
