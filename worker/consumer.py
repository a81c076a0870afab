"""The consumer thread: reserve → dispatch → settle, and renewing the lease. The hot path of the worker.

One turn, in this order:
1. wait for children, the broker's wake-up, the master, or the next deadline;
2. hear the children (outcomes and questions) and obey the master's letters;
3. renew the lease, keep the delayed set moving, give back what dead owners held;
4. flush results and settlements when they are due;
5. fetch into the free prefetch window, and dispatch to the children.

Owns the ledger, the channels, the connections and the window. The master's main thread talks to it through the
mailbox only and hears of it through notices. Nothing in here waits longer than a broker call's time-out.
"""

from __future__ import annotations

import logging
import math
import selectors
import signal
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from ..core.clock import Clock
from ..core.errors import ConfigError, TransportError
from ..core.tally import Tally
from ..pool import Channel, Pace, SlotTable
from ..tasks import identify
from .dispatcher import Dispatcher, Seat
from .enforcer import Enforcer
from .hearing import Hearing, Verdict
from .ledger import Entry, Ledger, State
from .link import Link
from .mailbox import Letter, Mailbox
from .marks import Marks
from .outcomes import Death, Outcomes
from .settler import Settler
from .sight import Sight
from .suspects import judge
from .title import Title

logger = logging.getLogger("qworker.worker")

#: After the last task has ended, a stop waits this long for a broker that is out of reach.
LAST_WORDS_S: Final = 10.0
#: A window of long tasks is refilled one by one: the round trips do not matter there.
SMALL_WINDOW: Final = 32
#: So many ids are named of messages that are left behind.
MOST_NAMED: Final = 100
#: The longest sleep: the master sees by the beat of the turns that this thread lives.
LONGEST_SLEEP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Notice:
    """What the consumer tells the master. `kind` is a key of the master's `_ON_NOTICE`."""

    kind: str
    slot: int = -1
    data: dict[str, Any] = field(default_factory=dict)


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
        self._notify = notify
        self._dispatcher = Dispatcher(ledger, pace, clock, quota=quota, on_spent=self._on_spent)
        self._table = table
        self._final_tasks = final_tasks
        self._marks = Marks(ledger, self._dispatcher, table, clock)
        self._enforcer = Enforcer(ledger, self._dispatcher, table, clock, self._signal_child)
        self.tally = tally or Tally()  # filled by this thread, read by any
        self._outcomes = Outcomes(
            ledger,
            settler,
            self._dispatcher,
            pace,
            clock,
            self._on_ready,
            self._on_boot_failed,
            self._enforcer.started,
            final_tasks,
            self.tally,
        )
        self.title: Title | None = None  # the master's; given by it before this thread starts
        self.sight = Sight(link, mailbox, clock)
        self._hearing = Hearing(lambda: not link.is_dry(), deaf_timeout_s)
        self._deaf_timeout_s = deaf_timeout_s
        self._selector = selectors.DefaultSelector()
        self._selector.register(mailbox.fileno(), selectors.EVENT_READ, None)
        self._wake_fd: int | None = None
        self._astray_since = math.inf
        self.beat = clock.monotonic()  # when the last turn began; read by the master
        self.is_connecting = False  # which may take longer than other things; read by the master
        self.is_awaited = False  # the master, which sets this, wants to be told of the next message or outage
        self._is_fetching = True
        self._is_stopped = False
        self._drained_at: float | None = None
        self._has_reported = False
        self._burst = burst

    def run(self) -> None:
        """Turn until told to stop; the body of the thread. An unexpected error ends it; the master is told."""
        try:
            while not self._is_stopped:
                self.turn()
        except Exception as error:  # the thread's outermost frame: the master has to know, whatever it was
            logger.exception("the consumer thread has ended with an error")
            self._notify(Notice("failed", data={"error": repr(error)}))
        else:
            self.close()

    def revive(self, living: Collection[int]) -> None:
        """Bring the records in order after `run` has ended with an error, so that another thread can go on.

        Called by the master between the two threads. `living` are the serial numbers of children that live; of the
        others the news may have been lost.
        """
        self._selector.close()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._mailbox.fileno(), selectors.EVENT_READ, None)
        self._wake_fd = None
        self._hearing.is_excused()
        self._link.broke(TransportError("the consumer is started anew"))
        self._astray_since = math.inf
        self._settler.repair()
        for entry in self._ledger.repair(self._settler.entries()):
            entry.state = State.HELD
            self._settler.requeue(entry)
        self._put_back_astray()
        for serial, seat in self._dispatcher.seats.items():
            if not seat.is_leaving:
                self._ledger.put_back(self._dispatcher.take_back(seat))
            seat.load = len(self._ledger.sent_to(serial))
            seat.has_backlog = False
            if not seat.is_deaf:
                self._selector.register(seat.channel.fileno(), selectors.EVENT_READ, seat)
            if serial not in living:
                self._mailbox.post("died", serial=serial, death=Death(None, why="a cause that went unnoticed"))

    def close(self) -> None:
        """Leave the broker and let go of every descriptor. Never raises."""
        self._link.transport.close()
        self._selector.close()

    def load(self) -> tuple[int, int]:
        """How many children work, and how many messages wait in the buffer. Any thread; a snapshot."""
        return sum(seat.load > 0 for seat in list(self._dispatcher.seats.values())), self._ledger.held

    def _busy_of_all(self) -> tuple[int, int]:
        """Children that work, and how many may at once."""
        return self.load()[0], min(self._dispatcher.most_busy, len(self._dispatcher.seats))

    def _put_back_astray(self) -> None:
        """What was sent to a child that has nothing to do, or that is no more, is in nobody's hands."""
        seats = self._dispatcher.seats
        astray = []
        for entry in self._ledger.unsettled():
            seat = seats.get(entry.channel)
            if entry.state is State.SENT and (seat is None or (not seat.load and not self._runs(seat, entry.seq))):
                astray.append(entry)
        self._ledger.put_back(astray)

    def _runs(self, seat: Seat, seq: int) -> bool:
        running = self._table.read(seat.channel.slot)
        return running is not None and running.seq == seq

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
        return turns and not self._hearing.is_in_doubt

    def turn(self) -> None:
        """Wait, then do everything that is due, once."""
        self.beat = self._clock.monotonic()
        woke = self._wait()
        self.beat = now = self._clock.monotonic()
        try:
            self._tell_broker(now, woke)
        except TransportError as error:
            self._watch_wake(None)
            self._hearing.is_excused()
            self._link.broke(error)
            self._stir()
        self._judge_suspects()
        self._enforcer.enforce(now)
        self._dispatcher.rebalance(now)
        if not self._outcomes.is_draining and not self._settler.is_full:
            self._dispatcher.dispatch()
        self._watch_backlogs()
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
        woke = False
        for key, mask in self._selector.select(self._timeout()):
            if key.data is None:
                continue
            if isinstance(key.data, Seat):
                if mask & selectors.EVENT_WRITE:
                    key.data.channel.flush()
                if mask & selectors.EVENT_READ:
                    self._hear(key.data)
            else:
                woke = True
        for letter in self._mailbox.take():
            self._obey(letter)
        return woke

    def _timeout(self) -> float:
        now = self._clock.monotonic()
        at = min(
            self._link.next_at(fetching=self._want() > 0),
            self._dispatcher.rebalance_at(now),
            self._enforcer.next_at(),
            self._hearing.next_at(),
            self.title.next_at if self.title is not None else math.inf,
            now + LONGEST_SLEEP_S,
        )
        if self._link.is_up:
            at = min(at, self._marks.next_at())
            if self._settler.is_due(now, idle=self._is_idle()):
                return 0.0
            at = min(at, self._settler.due_at() or math.inf)
        if self._drained_at is not None:
            at = min(at, self._drained_at + LAST_WORDS_S)
        return max(0.0, at - now)

    def _hear(self, seat: Seat) -> None:
        if not self._outcomes.hear(seat):
            # The exit status arrives through the spawner; until then the child just gets nothing more.
            seat.is_ready = False
            seat.is_deaf = True
            self._selector.unregister(seat.channel.fileno())

    def _watch_backlogs(self) -> None:
        """Ask to be woken when a child that is being sent something large can take more."""
        for seat in self._dispatcher.seats.values():
            has_backlog = seat.channel.has_backlog
            if has_backlog != seat.has_backlog and not seat.is_deaf:
                seat.has_backlog = has_backlog
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if has_backlog else 0)
                self._selector.modify(seat.channel.fileno(), events, seat)

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
        if self._settler.is_due(now, idle=self._is_idle()):
            self._link.be_certain()
            self._settler.flush()
        self._marks.mark(self._link.transport)
        want = self._want()
        if now >= self._hearing.next_at():
            self._link.look_now(now)  # what then still waits is nothing that others took in between
        got = self._link.fetch(want, now)
        if got:
            self._stir()
        self.sight.look(now)
        self._listen(now, want, got)
        self._check_books(now)
        if self._burst and not got and not len(self._ledger) and self._dispatcher.working() and self._link.is_dry():
            self._burst = False
            self._notify(Notice("dry"))

    def _stir(self) -> None:
        if self.is_awaited:
            self.is_awaited = False
            self._notify(Notice("stirred"))

    def _listen(self, now: float, want: int, got: int) -> None:
        """Notice when messages wait that never come. Raises TransportError, also to have the connection made anew."""
        if got:
            self._hearing.heard()
        elif want <= 0:
            self._hearing.is_excused()
        else:
            self._hearing.silence(now)
        verdict = self._hearing.check(now)
        if verdict is Verdict.REBUILD:
            raise TransportError(f"messages wait, and for {self._deaf_timeout_s:g} s none has come")
        if verdict is Verdict.GIVE_UP:
            logger.critical(
                "messages wait, and none comes although the connection was made anew: this worker is deaf and ends; "
                "what it holds goes back"
            )
            self._notify(Notice("deaf"))

    def _check_books(self, now: float) -> None:
        """Messages that nobody works on, waits with or settles would stay for ever, renewed and unseen."""
        is_busy = self._ledger.held or len(self._settler) or not self._is_idle()
        if is_busy or not len(self._ledger) or not self._deaf_timeout_s:
            self._astray_since = math.inf
            return
        self._astray_since = min(self._astray_since, now)
        if now - self._astray_since >= self._deaf_timeout_s:
            raise RuntimeError(f"{len(self._ledger)} messages are held and in nobody's hands")

    def _connect(self, now: float) -> bool:
        self._watch_wake(None)
        self.is_connecting = True
        try:
            if not self._link.connect_if_due(now):
                return False
        except ConfigError as error:
            self._link.is_up = False
            self._is_stopped = True
            self._notify(Notice("refused", data={"error": str(error)}))
            return False
        except TransportError as error:
            logger.critical("%s", error)
            self._link.is_up = False
            self._is_stopped = True
            self._notify(Notice("unreachable", data={"error": str(error)}))
            return False
        finally:
            self.is_connecting = False
        self._watch_wake(self._link.wake_fd())
        self._settler.broker_is_back()
        self._notify(Notice("connected"))
        return True

    def _watch_wake(self, fd: int | None) -> None:
        if self._wake_fd is not None:
            self._selector.unregister(self._wake_fd)
        self._wake_fd = fd
        if fd is not None:
            self._selector.register(fd, selectors.EVENT_READ, "wake")

    def _want(self) -> int:
        """How many messages the window has room for. A large one is refilled by halves, so that fetches stay large."""
        if not self._is_fetching or self._settler.is_full:
            return 0
        children = min(len(self._dispatcher.working()), self._dispatcher.most_busy)
        window = self._pace.window(children)
        free = window - len(self._ledger)
        enough = window // 2 if window > SMALL_WINDOW else max(1, min(self._link.fetch_size, window // 2))
        return free if free >= enough or (free > 0 and not self._ledger.held) else 0

    def _judge_suspects(self) -> None:
        """End what has crashed too often; the rest goes to the front, where it came from."""
        for entry in reversed(self._ledger.take_suspects()):
            if not judge(entry, self._settler, self._final_tasks):
                self._ledger.put_back([entry])

    def _is_idle(self) -> bool:
        """Whether no child is at work: then nothing is gained by letting settlements wait for company."""
        return all(seat.load == 0 for seat in self._dispatcher.seats.values())

    # -- children ------------------------------------------------------------------------------------------

    def _on_ready(self, seat: Seat) -> None:
        self._notify(Notice("ready", seat.channel.slot, {"serial": seat.channel.serial, "kib": seat.born_kib}))
        if self._outcomes.is_draining:
            self._dismiss(seat)

    def _on_boot_failed(self, seat: Seat, text: str) -> None:
        self._notify(Notice("boot_failed", seat.channel.slot, {"serial": seat.channel.serial, "traceback": text}))

    def _on_spent(self, seat: Seat) -> None:
        self._notify(Notice("spent", seat.channel.slot, {"serial": seat.channel.serial}))

    def _signal_child(self, seat: Seat, number: signal.Signals) -> None:
        data = {"serial": seat.channel.serial, "number": number}
        self._notify(Notice("signal_child", seat.channel.slot, data))

    def _dismiss(self, seat: Seat) -> None:
        """Ask a child to leave once it has nothing to do."""
        if seat.is_ready and not seat.is_leaving and seat.load == 0:
            seat.is_leaving = seat.channel.send_exit()
            self._enforcer.expect_end(seat)

    # -- the master's letters ------------------------------------------------------------------------------

    def _obey(self, letter: Letter) -> None:
        getattr(self, f"_obey_{letter.kind}")(**letter.data)

    def _obey_child(self, channel: Channel) -> None:
        """A child has been asked for."""
        self._selector.register(channel.fileno(), selectors.EVENT_READ, self._dispatcher.add(channel))

    def _obey_died(self, serial: int, death: Death, why: str = "") -> None:
        """A child has been reaped. `why` another one replaces it."""
        seat = self._dispatcher.seats.get(serial)
        if seat is None:  # told twice
            return
        if not seat.is_deaf:
            self._selector.unregister(seat.channel.fileno())
        self._outcomes.bury(seat, death, why)

    def _obey_size(self, size: int) -> None:
        """So many children may work at once, however many there are while some are being replaced."""
        self._dispatcher.most_busy = size

    def _obey_retire(self, serial: int) -> None:
        """This child is not needed any more: it finishes what it has begun and leaves."""
        seat = self._dispatcher.seats.get(serial)
        if seat is not None and not seat.is_leaving:
            seat.is_retired = True
            self._ledger.put_back(self._dispatcher.take_back(seat))
            self._end_unready(seat)

    def _obey_shed(self, serials: list[int]) -> None:
        """One of these children leaves without a successor: one that is doomed, boots, or has the least to do."""
        seats = [seat for serial in serials if (seat := self._dispatcher.seats.get(serial)) is not None]
        seat = min(seats, key=lambda s: (not s.is_leaving, s.load, s.is_ready), default=None)
        serial = 0 if seat is None else seat.channel.serial
        self._obey_retire(serial)
        self._notify(Notice("shed", data={"serial": serial}))

    def _end_unready(self, seat: Seat) -> None:
        """A child that has not finished booting has no work that could be lost, and may never finish."""
        if not seat.is_ready and not seat.is_deaf:
            self._signal_child(seat, signal.SIGKILL)

    def _obey_condemn(self, serial: int, kib: int, limit_kib: int) -> None:
        """A child has taken more memory than it may: it is killed now, which counts as a crash of what it runs."""
        seat = self._dispatcher.seats.get(serial)
        if seat is not None:
            self._enforcer.condemn_for_memory(seat, kib, limit_kib)

    def _obey_quiet(self) -> None:
        self._is_fetching = False
        self._link.stop_fetching()

    def _obey_resume(self) -> None:
        self._is_fetching = not self._outcomes.is_draining

    def _obey_drain(self) -> None:
        """Fetch nothing more; what no child has started goes back now, in order, to the front of its queue (P4)."""
        if self._outcomes.is_draining:
            return
        self._is_fetching = False
        self._link.stop_fetching()
        self._outcomes.is_draining = True
        self._outcomes.refuse_begins()
        for seat in self._dispatcher.seats.values():
            if not seat.is_leaving:  # what such a one has not read is its own order to leave
                self._ledger.put_back(self._dispatcher.take_back(seat))
                self._end_unready(seat)
        self._release()

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
        self._is_stopped = True
        if not self._has_reported:
            self.say_what_is_left()

    # -- the end -------------------------------------------------------------------------------------------

    def _release(self) -> None:
        """Requeue the whole buffer."""
        entries = self._ledger.empty_buffer()
        for entry in entries:
            self._settler.requeue(entry)
        for start in range(0, len(entries), MOST_NAMED):
            ids = _ids(entries[start : start + MOST_NAMED])
            logger.info("released %d messages that no child had started: %s", len(ids), ", ".join(ids))

    def _drain(self, now: float) -> None:
        """On every turn of a stop: dismiss children that have finished; report when nothing is left to do."""
        if self._ledger.held:
            self._release()
        for seat in self._dispatcher.seats.values():
            self._dismiss(seat)
        if self._dispatcher.seats or self._has_reported:
            return
        self._drained_at = self._drained_at or now
        left = len(self._ledger)
        if not left and not len(self._settler):
            self._report_drained(0)
        elif not self._link.was_up or now - self._drained_at >= LAST_WORDS_S:
            self._report_drained(left)

    def _report_drained(self, left: int) -> None:
        if left:
            logger.error("the broker is out of reach")
            self.say_what_is_left()
        self._has_reported = True
        self._notify(Notice("drained", data={"cut": self._outcomes.cut, "left": left, "done": self._outcomes.done}))

    def say_what_is_left(self) -> None:
        """For whoever looks for these messages while nobody has them. Any thread, if this one has come to a halt."""
        ids = _ids(self._ledger.entries())
        if ids:
            more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
            logger.error("%d messages are left to their lease: %s%s", len(ids), ", ".join(ids[:MOST_NAMED]), more)


def _ids(entries: Iterable[Entry]) -> list[str]:
    return [identify(entry.delivery.raw).task_id or "(no id)" for entry in entries]
