"""The consumer thread: reserve → dispatch → settle, and renewing the lease. The hot path of the worker.

One turn, in this order:
1. wait for children, the broker's wake-up, the master, or the next deadline;
2. hear the children (outcomes and questions) and obey the master's letters (`worker/obeying.py`);
3. renew the lease, keep the delayed set moving, give back what dead owners held;
4. flush results and settlements when they are due;
5. fetch into the free prefetch window, and dispatch to the children.

Owns the ledger, the channels, the connections and the window. The master's main thread talks to it through the
mailbox only and hears of it through notices. Nothing in here waits longer than a broker call's time-out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection
from typing import Final

from ..core import log_events, logs
from ..core.clock import Clock
from ..core.errors import ConfigError, TransportError
from ..core.tally import Tally
from ..pool import TABLE_SLOTS, Pace, SlotTable
from .dispatcher import Dispatcher, Seat
from .enforcer import Enforcer
from .intake import Intake
from .leaving import Leaving
from .ledger import Ledger
from .link import Link
from .mailbox import Mailbox
from .marks import Marks
from .notices import Notice, Notices
from .obeying import Obeying
from .outcomes import Outcomes
from .revival import put_in_order
from .settler import Settler
from .sight import Sight
from .suspects import judge_all
from .title import Title
from .waiting import Waiting

logger = logging.getLogger("qworker.worker")

#: The longest sleep: the master sees by the beat of the turns that this thread lives. Where it judges that sooner, half
#: of its time-out.
LONGEST_SLEEP_S: Final = 5.0


class Consumer:
    """The loop. One thread calls `turn`; everything else reaches it through the mailbox."""

    def __init__(
        self,
        link: Link,
        ledger: Ledger,
        settler: Settler,
        pace: Pace,
        mailbox: Mailbox,
        clock: Clock,
        notify: Callable[[Notice], None],
        table: SlotTable,
        final_tasks: frozenset[str] = frozenset(),
        *,
        burst: bool = False,
        quota: Callable[[], int | None] = lambda: None,
        deaf_timeout_s: float = 30.0,
        tally: Tally | None = None,
    ) -> None:
        self._link = link
        self._ledger = ledger
        self._settler = settler
        self._pace = pace
        self._mailbox = mailbox
        self._clock = clock
        self.notices = notices = Notices(notify)
        self._dispatcher = Dispatcher(ledger, pace, clock, quota=quota, on_spent=notices.spent)
        self._table = table
        self._final_tasks = final_tasks
        self._marks = Marks(ledger, self._dispatcher, table, clock)
        self._enforcer = Enforcer(ledger, self._dispatcher, table, clock, notices.signal_child)
        self.tally = tally or Tally()  # filled by this thread, read by any
        self._outcomes = Outcomes(
            ledger,
            settler,
            self._dispatcher,
            pace,
            clock,
            self._on_ready,
            notices.boot_failed,
            self._enforcer.started,
            final_tasks,
            self.tally,
        )
        self.title: Title | None = None  # the master's; given by it before this thread starts
        self.sight = Sight(link, mailbox, clock)
        self._intake = Intake(link, ledger, settler, self._dispatcher, pace, notices, deaf_timeout_s, burst=burst)
        self._waiting = Waiting(mailbox)
        self._leaving = Leaving(ledger, settler, self._report_drained)
        self._longest_sleep_s = min(LONGEST_SLEEP_S, deaf_timeout_s / 2 or LONGEST_SLEEP_S)
        self.beat = clock.monotonic()  # when the last turn began; read by the master
        self.is_connecting = False  # which may take longer than other things; read by the master
        self._obeying = Obeying(
            ledger,
            self._dispatcher,
            self._outcomes,
            self._enforcer,
            self._intake,
            self._waiting,
            self._leaving,
            notices,
            self._on_size,
        )

    def run(self) -> None:
        """Turn until told to stop; the body of the thread. An unexpected error ends it; the master is told."""
        try:
            while not self._obeying.is_stopped:
                self.turn()
        except Exception as error:  # the thread's outermost frame: the master has to know, whatever it was
            logs.say(
                logger,
                logging.ERROR,
                log_events.CONSUMER_FAILED,
                "the consumer thread has ended with an error",
                exc_info=True,
            )
            self.notices.tell("failed", error=repr(error))
        else:
            self.close()

    def revive(self, living: Collection[int]) -> None:
        """Bring the records in order after `run` has ended with an error, so that another thread can go on.

        Called by the master between the two threads. `living` are the serial numbers of children that live; of the
        others the news may have been lost.
        """
        self._intake.begin_anew()
        self._link.broke(TransportError("the consumer is started anew"))
        put_in_order(self._ledger, self._settler, self._dispatcher, self._table, self._mailbox, living)
        self._waiting.renew(self._dispatcher.seats.values())

    def close(self) -> None:
        """Leave the broker and let go of every descriptor. Never raises."""
        self._link.transport.close()
        self._waiting.close()

    def load(self) -> tuple[int, int]:
        """How many children work, and how many messages wait in the buffer. Any thread; a snapshot."""
        return sum(seat.load > 0 for seat in list(self._dispatcher.seats.values())), self._ledger.held

    def _busy_of_all(self) -> tuple[int, int]:
        """Children that work, and how many may at once."""
        return self.load()[0], min(self._dispatcher.most_busy, TABLE_SLOTS)

    def last_fetch_age_s(self) -> float:
        """How long ago the broker last answered a fetch, with messages or without. Any thread."""
        return self._clock.monotonic() - self._link.fetched_at

    @property
    def broker_trouble(self) -> str | None:
        """Why the broker is out of reach now, "" before the first attempt; None while it is in reach. Any thread."""
        return None if self._link.is_up else self._link.trouble

    def is_consuming(self) -> bool:
        """Whether this thread turns, and hears of messages that wait. Any thread."""
        turns = self.is_connecting or self._clock.monotonic() - self.beat < 2 * LONGEST_SLEEP_S
        return turns and not self._intake.is_in_doubt

    def turn(self) -> None:
        """Wait, then do everything that is due, once."""
        self.beat = self._clock.monotonic()
        woke = self._wait()
        self.beat = now = self._clock.monotonic()
        try:
            self._tell_broker(now, woke)
        except TransportError as error:
            self._waiting.watch_wake(None)
            self._intake.excuse()
            self._link.broke(error)
            self.notices.stir()
        judge_all(self._ledger, self._settler, self._final_tasks)
        self._enforcer.enforce(now)
        self._dispatcher.rebalance(now)
        if not self._outcomes.is_draining and not self._settler.is_full:
            self._dispatcher.dispatch()
        self._waiting.watch_backlogs(self._dispatcher.seats.values())
        for seat in self._dispatcher.seats.values():
            if seat.is_retired:
                self._dismiss(seat)
        if self._outcomes.is_draining:
            self._drain(now)
        if self.title is not None:
            self.title.tend(now, len(self._ledger) > 0, self._busy_of_all)

    # -- waiting -------------------------------------------------------------------------------------------

    def _wait(self) -> bool:
        """Sleep until something happens and hear it; True when it was the broker's wake-up."""
        spoken, woke = self._waiting.wait(self._timeout())
        for seat in spoken:
            self._hear(seat)
        for letter in self._mailbox.take():
            self._obeying.obey(letter)
        return woke

    def _timeout(self) -> float:
        now = self._clock.monotonic()
        at = min(
            self._link.next_at(fetching=self._intake.want() > 0),
            self._dispatcher.rebalance_at(now),
            self._enforcer.next_at(),
            self._intake.next_at(),
            self.title.next_at if self.title is not None else math.inf,
            now + self._longest_sleep_s,
        )
        if self._link.is_up:
            at = min(at, self._marks.next_at())
            if self._settler.is_due(now, idle=self._dispatcher.is_idle()):
                return 0.0
            at = min(at, self._settler.due_at() or math.inf)
        return max(0.0, min(at, self._leaving.give_up_at()) - now)

    def _hear(self, seat: Seat) -> None:
        if not self._outcomes.hear(seat):
            # The exit status arrives through the spawner; until then the child just gets nothing more.
            seat.is_ready = False
            seat.is_deaf = True
            self._waiting.remove(seat)

    # -- the broker ----------------------------------------------------------------------------------------

    def _tell_broker(self, now: float, woke: bool) -> None:
        if not self._link.is_up and not self._connect(now):
            return
        if self._outcomes.is_draining:
            self._marks.end(self._link.transport)  # first: whoever stops us may soon lose patience
        if woke:
            self._link.woke(now)
        self._link.tend(now)  # first: what was lost must not be acked, started or stored
        if self._outcomes.pending_begins:
            self._outcomes.grant_begins()
        if self._settler.is_due(now, idle=self._dispatcher.is_idle()):
            self._link.be_certain()
            self._settler.flush()
        self._marks.mark(self._link.transport)
        self._intake.fetch(now)
        self.sight.look(now)

    def _connect(self, now: float) -> bool:
        self._waiting.watch_wake(None)
        self.is_connecting = True
        try:
            if not self._link.connect_if_due(now):
                return False
        except ConfigError as error:
            self._link.is_up = False
            self._obeying.is_stopped = True
            self.notices.tell("refused", error=str(error))
            return False
        except TransportError as error:
            logs.say(logger, logging.CRITICAL, log_events.CHANNEL_BROKEN, "{error}", error=error)
            self._link.is_up = False
            self._obeying.is_stopped = True
            self.notices.tell("unreachable", error=str(error))
            return False
        finally:
            self.is_connecting = False
        self._waiting.watch_wake(self._link.wake_fd())
        self._settler.broker_is_back()
        self.notices.tell("connected")
        return True

    # -- children ------------------------------------------------------------------------------------------

    def _on_ready(self, seat: Seat) -> None:
        self.notices.tell_of(seat, "ready", kib=seat.born_kib)
        if self._outcomes.is_draining:
            self._dismiss(seat)

    def _on_size(self) -> None:
        if self.title is not None:
            self.title.is_outdated()

    def _dismiss(self, seat: Seat) -> None:
        """Ask a child to leave once it has nothing to do."""
        if seat.is_ready and not seat.is_leaving and seat.load == 0:
            seat.is_leaving = seat.channel.send_exit()
            self._enforcer.expect_end(seat)

    # -- the end -------------------------------------------------------------------------------------------

    def _drain(self, now: float) -> None:
        """On every turn of a stop: dismiss children that have finished; report when nothing is left to do."""
        for seat in self._dispatcher.seats.values():
            self._dismiss(seat)
        self._leaving.tend(now, has_children=bool(self._dispatcher.seats), has_broker=self._link.was_up)

    def _report_drained(self, left: int) -> None:
        self.notices.tell("drained", cut=self._outcomes.cut, left=left, done=self._outcomes.done)

    def say_what_is_left(self) -> None:
        """For whoever looks for these messages while nobody has them. Any thread, if this one has come to a halt."""
        self._leaving.say_what_is_left()
