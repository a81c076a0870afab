"""Gives back what the broker holds in the name of an owner who does nothing any more.

For a worker whose consumer thread hangs (`worker/hang.py`), and for the image that follows it in the same process when
the broker could not be told before. Its children are dead by then: nothing of it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..tasks import identify
from ..transports import Transport

#: So many ids are named of messages that changed hands.
MOST_NAMED: Final = 100


def give_back(transport: Transport) -> list[str]:
    """Requeue all that is held in the name of `transport`'s owner, to the front and as nobody's fault; then close it.

    Returns the task ids. Each step is one atomic move: when it is cut off, the rest is left to its lease. Nothing, with
    a broker that does not know who holds what: there, claims end by themselves. Raises TransportError, ConfigError.
    """
    if not transport.capabilities.knows_holders:
        return []
    try:
        # This begins a session in the owner's name: whatever the one before still sends takes nothing from now on.
        transport.connect()
        transport.mark_stopping()
        held = transport.recall(())
        if held:
            transport.requeue(held)
    finally:
        transport.close()
    return [identify(delivery.raw).task_id or "(no id)" for delivery in held]


def names_of(ids: Sequence[str]) -> str:
    """These ids for a log line, as far as they fit one."""
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(ids[:MOST_NAMED]) + more
