"""How one run of a message ended: plain data, made by run.py, carried by the pool, settled by the consumer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final

from ..core.tally import Ending
from ..transports import Envelope


class Action(IntEnum):
    """How the message of a run is to be settled."""

    ACK = 0
    REQUEUE = 1  # to the front of its queue, not counted
    REJECT = 2  # to the dead-letter store
    PARK = 3  # to the delayed set, until `due`
    DROP = 4  # the master refused the start of an at-most-once task: nothing was run, nothing to settle


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(slots=True)
class Outcome:
    """How one run ended.

    `meta` is the result to store (None = store nothing), encoded; `busy_s` the time from reading the message to this
    outcome. `successors` are published in the same step as the ack; `due` (epoch seconds) goes with PARK; `reason`
    and `details` with REJECT. `others` are results to store for other tasks (the rest of a chain that has failed):
    task id and meta.

    For the accounts: `ending`; the task's name, empty if no task was run; how long the message had waited (-1: it does
    not say); what the run has used (`usage.py`).
    """

    action: Action = Action.ACK
    task_id: str = ""
    meta: bytes | None = None
    is_success: bool = False
    busy_s: float = 0.0
    successors: Sequence[Envelope] = ()
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    due: float | None = None
    others: Sequence[tuple[str, bytes]] = ()
    ending: int = Ending.NONE
    task: bytes = b""
    wait_s: float = -1.0
    cpu_s: float = 0.0
    peak_kib: int = 0
