"""What the consumer thread does with the letters that the master posts: of children, of fetching, of stopping.

Each kind of letter (`worker/mailbox.py`) is a method `_obey_<kind>` here, its data are the arguments. Called by the
consumer (`worker/consumer.py`) on each turn, in its thread; the letters of the other direction: `worker/news.py`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from ..pool import Channel
from .death import Death
from .dispatcher import Dispatcher, Seat
from .enforcer import Enforcer
from .intake import Intake
from .leaving import Leaving
from .ledger import Ledger
from .mailbox import Letter
from .notices import Notices
from .outcomes import Outcomes
from .waiting import Waiting


class Obeying:
    """`is_stopped`: the thread is to end. `on_size` is called when another number of children may work."""

    def __init__(
        self,
        ledger: Ledger,
        dispatcher: Dispatcher,
        outcomes: Outcomes,
        enforcer: Enforcer,
        intake: Intake,
        waiting: Waiting,
        leaving: Leaving,
        notices: Notices,
        on_size: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._outcomes = outcomes
        self._enforcer = enforcer
        self._intake = intake
        self._waiting = waiting
        self._leaving = leaving
        self._notices = notices
        self._on_size = on_size
        self.is_stopped = False

    def obey(self, letter: Letter) -> None:
        """Do what one letter says."""
        getattr(self, f"_obey_{letter.kind}")(**letter.data)

    def _obey_child(self, channel: Channel) -> None:
        """A child has been asked for."""
        self._waiting.add(self._dispatcher.add(channel))

    def _obey_died(self, serial: int, death: Death, why: str = "") -> None:
        """A child has been reaped. `why` another one replaces it."""
        seat = self._dispatcher.seats.get(serial)
        if seat is None:  # told twice
            return
        if not seat.is_deaf:
            self._waiting.remove(seat)
        self._outcomes.bury(seat, death, why)

    def _obey_size(self, size: int) -> None:
        """So many children may work at once, however many there are while some are being replaced."""
        self._dispatcher.most_busy = size
        self._on_size()

    def _obey_retire(self, serial: int) -> None:
        """This child is not needed any more: it finishes what it has begun and leaves."""
        seat = self._dispatcher.seats.get(serial)
        if seat is not None and not seat.is_leaving:
            seat.is_retired = True
            self._ledger.put_back(self._dispatcher.take_back(seat))
            self._end_unready(seat)

    def _obey_reprieve(self, serial: int) -> None:
        """This child cannot be replaced yet: it may run as many messages as a new one."""
        seat = self._dispatcher.seats.get(serial)
        if seat is not None:
            self._dispatcher.reprieve(seat)

    def _obey_shed(self, serials: list[int]) -> None:
        """One of these children leaves without a successor: one that is doomed, boots, or has the least to do."""
        seats = [seat for serial in serials if (seat := self._dispatcher.seats.get(serial)) is not None]
        seat = min(seats, key=lambda s: (not s.is_leaving, s.load, s.is_ready), default=None)
        serial = 0 if seat is None else seat.channel.serial
        self._obey_retire(serial)
        self._notices.tell("shed", serial=serial)

    def _obey_condemn(self, serial: int, kib: int, limit_kib: int) -> None:
        """A child has taken more memory than it may: it is killed now, which counts as a crash of what it runs."""
        seat = self._dispatcher.seats.get(serial)
        if seat is not None:
            self._enforcer.condemn_for_memory(seat, kib, limit_kib)

    def _obey_quiet(self) -> None:
        self._intake.stop()

    def _obey_resume(self) -> None:
        self._intake.is_fetching = not self._outcomes.is_draining

    def _obey_drain(self) -> None:
        """Fetch nothing more; what no child has started goes back now, in order, to the front of its queue (P4)."""
        if self._outcomes.is_draining:
            return
        self._intake.stop()
        self._outcomes.is_draining = True
        self._outcomes.refuse_begins()
        for seat in self._dispatcher.seats.values():
            if not seat.is_leaving:  # what such a one has not read is its own order to leave
                self._ledger.put_back(self._dispatcher.take_back(seat))
                self._end_unready(seat)
        self._leaving.release()

    def _obey_cut(self) -> None:
        """A cold stop: have everything that runs interrupted."""
        self._outcomes.is_cutting = True
        self._enforcer.cut()

    def _obey_stacks(self) -> None:
        """Ask every child for its stacks; they are logged a moment later."""
        for seat in self._dispatcher.seats.values():
            self._enforcer.ask_stack(seat, "as asked by SIGUSR1")

    def _obey_nothing(self) -> None:
        """Wake up and look around."""

    def _obey_stop(self) -> None:
        self.is_stopped = True
        if not self._leaving.has_reported:
            self._leaving.say_what_is_left()

    def _end_unready(self, seat: Seat) -> None:
        """A child that has not finished booting has no work that could be lost, and may never finish."""
        if not seat.is_ready and not seat.is_deaf:
            self._notices.signal_child(seat, signal.SIGKILL)
