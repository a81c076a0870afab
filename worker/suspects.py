"""What becomes of a message that has crashed before, when it is reserved again. Owned by the consumer thread.

A child's crash is counted by the worker that saw it, which also ends the third one. The death of a whole worker is
counted by whoever recovers its messages, and that is the broker, which knows nothing of results and task options: so
the next worker to reserve the message judges it before a child sees it.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import Final

from ..core import log_events, logs
from ..core.errors import WorkerLostError
from ..results import StoredResult
from ..tasks import Action, Outcome, lost_outcome
from .ledger import Entry, Ledger
from .settler import Settler

logger = logging.getLogger("qworker.worker")

#: A message whose children have died this often goes to the dead-letter store (P5).
MAX_CRASHES: Final = 3

_CAUSE: Final = "the death of the worker that ran it"


def judge_all(ledger: Ledger, settler: Settler, final_tasks: Container[str]) -> None:
    """End what has crashed too often; the rest goes to the front, where it came from."""
    for entry in reversed(ledger.take_suspects()):
        if not judge(entry, settler, final_tasks):
            ledger.put_back([entry])


def judge(entry: Entry, settler: Settler, final_tasks: Container[str]) -> bool:
    """Settle `entry` if its crashes are its end; False when it may run once more.

    Takes entries that have crashed at least once. One of `final_tasks` (`reject_on_worker_lost=False`) ends at the
    first crash, as a failure.
    """
    crashes = entry.delivery.crashes
    details = {"cause": _CAUSE, "status": None, "peak_kib": None, "crashes": crashes}
    lost = lost_outcome(entry.delivery.raw, WorkerLostError(f"crash {crashes}: {_CAUSE}"), details, final_tasks)
    is_final = lost.action is Action.ACK
    if crashes < MAX_CRASHES and not is_final:
        return False
    logs.say(
        logger,
        logging.ERROR,
        log_events.TASK_LOST,
        "Task {task}[{id}] lost: {cause}, crash {crashes} of {most}, {fate}",
        task=lost.details.get("task"),
        id=lost.task_id,
        cause=_CAUSE,
        crashes=crashes,
        most=MAX_CRASHES,
        fate="not run again" if is_final else "dead-lettered",
    )
    end_crashed(entry, lost, settler)
    return True


def end_crashed(entry: Entry, lost: Outcome, settler: Settler) -> None:
    """Settle what has crashed for the last time: as a failure, or as a dead letter."""
    if lost.meta is not None:
        settler.result(entry, StoredResult(lost.task_id, lost.meta, False))
    if lost.action is Action.ACK:
        settler.ack(entry)
    else:
        settler.reject(entry, "crashed", lost.details)
