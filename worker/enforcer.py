"""Ends what runs: orders to stop (soft limit, cold stop) and kills (hard limit). Owned by the consumer thread.

An order stands in the slot table; a signal makes the child look. Signals are sent by the spawner, which alone knows
that a pid is still its child's, so they go through the master (`signal_child`).
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable
from typing import Final

from ..core import log_events, logs
from ..core.clock import Clock
from ..pool import SlotTable
from ..tasks import Order, identify
from .dispatcher import Dispatcher, Seat
from .ledger import Entry, Ledger, State
from .limits import Limit, Limits

logger = logging.getLogger("qworker.worker")

#: An order that found the child outside of user code is repeated.
REPEAT_S: Final = 0.1
#: Between the signal that has a child write its stack and the one that ends it.
STACK_S: Final = 0.05
#: How long a child that has nothing to do may take to leave.
LEAVE_S: Final = 5.0


class Enforcer:
    """Deadlines of runs and the acts that follow. `signal_child(seat, number)` never waits."""

    def __init__(
        self,
        ledger: Ledger,
        dispatcher: Dispatcher,
        table: SlotTable,
        clock: Clock,
        signal_child: Callable[[Seat, signal.Signals], None],
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._table = table
        self._clock = clock
        self._signal_child = signal_child
        self._limits = Limits(self._may_run)
        self._orders: dict[int, tuple[int, Order]] = {}  # channel serial → (seq, order)
        self._kills: dict[int, float] = {}  # channel serial → when
        self._repeat_at = math.inf
        self._asked: dict[int, tuple[float, str]] = {}  # channel serial → when to read its stack, and the headline

    def started(self, seat: Seat, seq: int, limits: tuple[float, float, bool, bool]) -> None:
        """A child has started a message that has time limits."""
        soft_s, hard_s, acks_on_timeout, stores = limits
        seat.limits = (seq, Limit(hard_s, acks_on_timeout, stores))
        self._limits.add(seat.channel.serial, seq, self._clock.monotonic(), soft_s, hard_s)

    def _may_run(self, serial: int, seq: int) -> bool:
        seat = self._dispatcher.seats.get(serial)
        return seat is not None and seat.limits is not None and seat.limits[0] == seq

    def cut(self) -> None:
        """A cold stop: have WorkerShutdown raised in everything that runs."""
        for seat in self._dispatcher.seats.values():
            for entry in self._ledger.sent_to(seat.channel.serial):
                self._order(seat, entry.seq, Order.SHUTDOWN)

    def next_at(self) -> float:
        """When `enforce` has something to do."""
        asked = (at for at, _ in self._asked.values())
        return min(self._limits.next_at(), self._repeat_at, *self._kills.values(), *asked, math.inf)

    def enforce(self, now: float) -> None:
        """Act on the deadlines that have come, repeat orders that have not been obeyed, carry out kills."""
        for due in self._limits.due(now):
            seat = self._dispatcher.seats.get(due.serial)
            entry = self._ledger.get(due.seq)
            if seat is None or entry is None or entry.state is not State.SENT:
                continue
            if due.is_hard:
                self._sentence(seat, entry, due.limit_s, now)
            else:
                self._tell(entry, f"soft time limit ({due.limit_s:g}s) exceeded", logging.WARNING)
                self.ask_stack(seat, "at its soft time limit")
                self._order(seat, due.seq, Order.SOFT_LIMIT)
        if now >= self._repeat_at:
            self._repeat(now)
        for serial, (at, headline) in list(self._asked.items()):
            if now >= at:
                del self._asked[serial]
                self._log_stack(serial, headline)
        for serial, at in list(self._kills.items()):
            if now >= at:
                del self._kills[serial]
                self._kill(serial)

    def _order(self, seat: Seat, seq: int, order: Order) -> None:
        if self._orders.get(seat.channel.serial) == (seq, Order.SHUTDOWN):
            return  # a soft limit must not make it forget that the worker stops
        self._table.give_order(seat.channel.slot, seq, order)
        self._orders[seat.channel.serial] = (seq, order)
        self._repeat_at = self._clock.monotonic() + REPEAT_S
        self._signal_child(seat, signal.SIGUSR2)

    def _repeat(self, now: float) -> None:
        for serial, (seq, _) in list(self._orders.items()):
            seat, entry = self._dispatcher.seats.get(serial), self._ledger.get(seq)
            if seat is None or entry is None or entry.state is not State.SENT:
                del self._orders[serial]
            else:
                self._signal_child(seat, signal.SIGUSR2)
        self._repeat_at = now + REPEAT_S if self._orders else math.inf

    def _sentence(self, seat: Seat, entry: Entry, limit_s: float, now: float) -> None:
        """The hard limit: nothing more is given to this child, its stack is written, then it is killed."""
        self._tell(entry, f"hard time limit ({limit_s:g}s) exceeded, its child is killed", logging.ERROR)
        seat.condemned_for = entry.seq
        seat.is_leaving = True
        self._ledger.put_back(self._dispatcher.take_back(seat))
        self.ask_stack(seat, "before it is killed")
        self._kills[seat.channel.serial] = now + 2 * STACK_S

    def expect_end(self, seat: Seat) -> None:
        """A child with nothing to do has been asked to leave: one that does not (it may be frozen) is killed."""
        self._kills.setdefault(seat.channel.serial, self._clock.monotonic() + LEAVE_S)

    def ask_stack(self, seat: Seat, occasion: str) -> None:
        """Have a child write its stacks, by C code, whatever it is busy with; they are in the log a moment later."""
        running = self._table.read(seat.channel.slot)
        doing = running.text if running is not None else "nothing"
        headline = f"stacks of child {seat.channel.slot + 1} {occasion}, running: {doing}"
        self._asked[seat.channel.serial] = (self._clock.monotonic() + STACK_S, headline)
        self._signal_child(seat, signal.SIGUSR1)

    def _log_stack(self, serial: int, headline: str) -> None:
        seat = self._dispatcher.seats.get(serial)
        if seat is not None:
            seat.stack = seat.channel.stack() or seat.stack
            stacks = seat.stack or "(none was written)"
            logs.say(logger, logging.WARNING, log_events.STACKS, "{of}\n{stacks}", of=headline, stacks=stacks)

    def condemn_for_memory(self, seat: Seat, kib: int, limit_kib: int) -> None:
        """`--max-memory-hard`: kill this child now. A crash of what it runs, with the reading as its cause."""
        if seat.memory_cause:
            return
        running = self._table.read(seat.channel.slot)
        seat.memory_cause = f"{kib} KiB of memory, above the hard limit of {limit_kib} KiB"
        logs.say(
            logger,
            logging.ERROR,
            log_events.CHILD_KILLED,
            "child {child} is killed: {cause}",
            child=seat.channel.slot + 1,
            cause=seat.memory_cause,
        )
        seat.is_leaving = True
        seat.condemned_for = running.seq if running is not None else -1
        self._ledger.put_back(self._dispatcher.take_back(seat))
        self._signal_child(seat, signal.SIGKILL)

    def _kill(self, serial: int) -> None:
        seat = self._dispatcher.seats.get(serial)
        if seat is None:
            return
        if not seat.condemned_for:
            logs.say(
                logger,
                logging.WARNING,
                log_events.CHILD_KILLED,
                "child {child} was asked to leave and has not left: it is killed",
                child=seat.channel.slot + 1,
            )
        self._signal_child(seat, signal.SIGKILL)

    def _tell(self, entry: Entry, text: str, level: int) -> None:
        task_id, task = identify(entry.delivery.raw)
        logs.say(logger, level, log_events.TASK_LIMIT, "Task {task}[{id}] {what}", task=task, id=task_id, what=text)
