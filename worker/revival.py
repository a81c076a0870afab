"""Brings the consumer's records in order after its thread has ended with an error, wherever that struck.

Called by `Consumer.revive` between two threads. Whatever is in nobody's hands goes on: back to the buffer, or to the
broker.
"""

from __future__ import annotations

from collections.abc import Collection

from ..pool import SlotTable
from .death import Death
from .dispatcher import Dispatcher, Seat
from .ledger import Entry, Ledger, State
from .mailbox import Mailbox
from .settler import Settler


def put_in_order(
    ledger: Ledger,
    settler: Settler,
    dispatcher: Dispatcher,
    table: SlotTable,
    mailbox: Mailbox,
    living: Collection[int],
) -> None:
    """Have every entry be where its state says. `living` are the serial numbers of children that live; of the others
    the news may have been lost."""
    settler.repair()
    for entry in ledger.repair(settler.entries()):
        entry.state = State.HELD
        settler.requeue(entry)
    ledger.put_back(_astray(ledger, dispatcher, table))
    for serial, seat in dispatcher.seats.items():
        if not seat.is_leaving:
            ledger.put_back(dispatcher.take_back(seat))
        seat.load = len(ledger.sent_to(serial))
        if serial not in living:
            mailbox.post("died", serial=serial, death=Death(None, why="a cause that went unnoticed"))


def _astray(ledger: Ledger, dispatcher: Dispatcher, table: SlotTable) -> list[Entry]:
    """What was sent to a child that has nothing to do, or that is no more, is in nobody's hands."""
    found = []
    for entry in ledger.unsettled():
        seat = dispatcher.seats.get(entry.channel)
        if entry.state is State.SENT and (seat is None or (not seat.load and not _runs(seat, entry.seq, table))):
            found.append(entry)
    return found


def _runs(seat: Seat, seq: int, table: SlotTable) -> bool:
    running = table.read(seat.channel.slot)
    return running is not None and running.seq == seq
