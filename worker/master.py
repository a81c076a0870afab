"""The master: hears signals, spawners and the consumer thread, and has each of them lead to what follows from it.

One turn, in this order:
1. wait for a signal, the spawner, the consumer, or the phase's deadline;
2. signals → events → phase (`worker/lifecycle.py`), or a change of the pool;
3. what the spawner reports: application loaded or broken, children born and dead;
4. what the consumer notices: children ready, broker reached, drained, failed;
5. reconcile: end a phase whose time is over, fill empty slots;
6. companions look at what has changed (`core/companion.py`).

Runs in the main thread and owns everything but what the consumer thread owns (`worker/consumer.py`).
"""

from __future__ import annotations

import logging
import math
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from ..core import journal, log_events, logs
from ..core.clock import Clock
from ..core.companion import Companion
from ..core.errors import ConfigError
from ..pool import SlotTable
from ..signals import SignalPipe, own_stacks, reap_strangers
from .crew import Crew, Spawner
from .exitcodes import ExitCode
from .generations import Generations, StartSpawner
from .hang import Hang, leave
from .image import Image, Legacy
from .lifecycle import Lifecycle
from .lifeline import Lifeline
from .mailbox import Mailbox, readable
from .notices import Notice
from .outcomes import Death
from .phases import SIGNAL_EVENTS, Event, Phase, remapped
from .plan import Plan
from .title import Title
from .upkeep import Upkeep
from .view import View

logger = logging.getLogger("qworker.worker")

#: How long spawners may take to leave; one that imports the application is not waited for.
SPAWNER_S: Final = 2.0
#: How long the consumer thread may take to close its connections at the very end.
_CLOSE_S: Final = 5.0
#: The same when it could not even give its messages back in time: it probably waits for the broker.
_CUT_OFF_S: Final = 0.5


class Master:
    """One worker.

    `plan` makes the consumer from the configuration that the spawner reports; it may raise ConfigError. `image`: how
    to start this process anew, if it may be.
    """

    def __init__(
        self,
        start_spawner: StartSpawner,
        plan: Callable[[dict[str, Any], SlotTable, Mailbox, Callable[[Notice], None]], Plan],
        clock: Clock,
        *,
        node: str = "",
        companions: Sequence[Companion] = (),
        image: Image | None = None,
    ) -> None:
        self._plan = plan
        self._image = image
        self._legacy = image.legacy if image is not None else Legacy()
        self._made: Plan | None = None
        self._clock = clock
        # The init of a container has every orphan for a child, an heir what the image before it has left.
        is_foster = os.getpid() == 1 or bool(self._legacy.replaced_at)
        self._pipe = SignalPipe([*SIGNAL_EVENTS, *_ON_SIGNAL, *([signal.SIGCHLD] if is_foster else [])])
        self._events = remapped(SIGNAL_EVENTS, os.environ.get("REMAP_SIGTERM"))
        self._mailbox = Mailbox()
        self._notices: deque[Notice] = deque()
        self._bell = Mailbox()
        self._table = SlotTable.create()
        self._title = Title(node)
        self._life = Lifecycle(self._mailbox, self._table, clock, self._cut_runs, self._end_children, self._title.phase)
        self._generations = Generations(start_spawner, self._table, clock)
        self._crew: Crew | None = None
        self._upkeep: Upkeep | None = None
        self._lifeline: Lifeline | None = None
        self._view = View(node, self._life, self._generations, self._table, clock)
        self._companions = list(companions)
        self.has_loaded = False
        self.has_started = False
        self._is_connected = False
        self._started_at = clock.monotonic()

    @property
    def phase(self) -> Phase:
        """Where the worker is in its life."""
        return self._life.phase

    @property
    def exit_code(self) -> ExitCode | None:
        """None until the worker has ended."""
        return self._life.exit_code

    def run(self) -> ExitCode:
        """Turn until the worker has ended; returns the exit code."""
        if self._legacy.is_quiet:
            self._life.move(Event.QUIET)
        self._pipe.inherit(self._legacy.signals)
        self._pipe.install()
        try:
            self.start()
            while self.exit_code is None:
                self.turn()
        finally:
            self._leave()
        return self.exit_code

    def start(self) -> None:
        """Start the spawner. Before any thread and any connection of this process."""
        self._generations.begin()
        self._title.phase(self.phase.value)
        for companion in self._companions:
            companion.open(self._view)

    def notice(self, number: signal.Signals) -> None:
        """Take note of a signal; the next turn acts. Any thread."""
        self._notify(Notice("signal", data={"number": number}))

    def turn(self) -> None:
        """Wait, then do everything that is due, once."""
        watched: list[SignalPipe | Mailbox | Spawner | int] = [self._pipe, self._bell, *self._generations.all()]
        for companion in self._companions:
            watched.extend(companion.descriptors())
        respawn_at = math.inf if self._life.is_stopping else self._generations.next_at()
        at = min(self._life.deadline, respawn_at, self._upkeep.next_at() if self._upkeep else math.inf)
        at = min(at, self._lifeline.next_at() if self._lifeline else math.inf)
        at = min([at, *(companion.next_at() for companion in self._companions)])
        timeout = None if at == math.inf else max(0.0, at - self._clock.monotonic())
        ready = readable(watched, timeout)
        for number in self._pipe.take():
            self._on_signal(number)
        spawners = [spawner for spawner in self._generations.all() if spawner.fileno() in ready]
        for report in self._generations.hear(spawners, self._crew):
            _ON_REPORT[report["event"]](self, report)
        self._bell.clear()
        while self._notices:
            self._on_notice(self._notices.popleft())
        self._life.look_at_clock()
        if self._lifeline is not None and self._lifeline.is_hung():
            self._leave_hung(self._lifeline)
        self._reconcile()
        for companion in self._companions:
            companion.turn()

    # -- signals and phases --------------------------------------------------------------------------------

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            reap_strangers({spawner.pid for spawner in self._generations.all()})
            return
        logs.say(logger, logging.INFO, log_events.SIGNAL, "received {signal}", signal=number.name)
        act = _ON_SIGNAL.get(number)
        if number == signal.SIGUSR2:
            self._reopen_logs()
        elif act is None:
            self._life.move(self._events[number])
        elif self._crew is None or (self._life.is_stopping and number != signal.SIGUSR1):
            logs.say(
                logger,
                logging.INFO,
                log_events.SIGNAL_IGNORED,
                "{signal} has no effect now: the worker is {phase}",
                signal=number.name,
                phase=self.phase.value,
            )
        else:
            act(self, self._crew)

    def _dump_stacks(self, crew: Crew) -> None:
        """The stacks of the master's threads and of every child, with what each child runs, go to the log."""
        logs.say(
            logger,
            logging.INFO,
            log_events.STACKS,
            "stacks of the master (pid {of}):\n{stacks}",
            of=os.getpid(),
            stacks=own_stacks(),
        )
        self._mailbox.post("stacks")

    def _reopen_logs(self, _crew: Crew | None = None) -> None:
        """In every phase, and in all processes."""
        logs.reopen()
        for spawner in self._generations.all():
            spawner.reopen_logs()
        logs.say(logger, logging.INFO, log_events.LOGS_REOPENED, "log files are opened anew")

    def _grow(self, crew: Crew) -> None:
        if self._upkeep is not None:
            self._upkeep.grow(crew.size + 1)

    def _shrink(self, crew: Crew) -> None:
        if self._upkeep is not None:
            self._upkeep.shrink()

    def _reload(self, crew: Crew) -> None:
        self._generations.reload()

    def _on_shed(self, notice: Notice) -> None:
        if self._crew is not None:
            self._crew.shed(notice.data["serial"])

    # -- the spawner ---------------------------------------------------------------------------------------

    def _on_loaded(self, report: dict[str, Any]) -> None:
        if self.has_loaded or self._life.is_stopping:
            return
        self.has_loaded = True
        try:
            plan = self._plan(report["config"], self._table, self._mailbox, self._notify)
        except ConfigError as error:
            self._refuse(ExitCode.CONFIG, str(error))
            return
        self._life.soft_s = plan.soft_s
        self.has_started = True
        self._made = plan
        plan.consumer.title = self._title
        self._crew = Crew(self._legacy.size or plan.size, self._mailbox)
        self._upkeep = Upkeep(
            self._crew,
            self._mailbox,
            self._clock,
            max_memory_kib=plan.max_memory_kib,
            max_memory_hard_kib=plan.max_memory_hard_kib,
            autoscale=plan.autoscale,
            load=plan.consumer.load,
        )
        self._lifeline = Lifeline(plan.consumer, self._clock, plan.deaf_timeout_s)
        self._lifeline.start()
        self._life.has_consumer = True
        self._view.sees(self._crew, plan.consumer, plan.about)

    def _on_load_failed(self, report: dict[str, Any]) -> None:
        code = ExitCode.CONFIG if report["kind"] == "config" else ExitCode.APP
        self._refuse(code, report["text"], report["details"])

    def _refuse(self, code: ExitCode, text: str, details: str = "") -> None:
        for line in filter(None, [details.rstrip(), *(f"qworker: {problem}" for problem in text.splitlines())]):
            journal.say(line)
        self._life.fail(code)

    def _on_forked(self, report: dict[str, Any]) -> None:
        assert self._crew is not None
        self._crew.born(report["slot"], report["pid"])
        if self.phase in (Phase.COLD, Phase.HARD):  # asked for just before the end
            self._crew.kill()

    def _on_exited(self, report: dict[str, Any]) -> None:
        assert self._crew is not None
        is_ours = self.phase is Phase.HARD
        self._crew.died(report["slot"], report["pid"], Death(report["status"], report["peak_kib"], is_ours))

    def _on_spawner_gone(self, report: dict[str, Any]) -> None:
        """Before the application was loaded that is a start that failed."""
        if self._life.is_stopping:
            return
        if not self.has_loaded:
            self._refuse(ExitCode.APP, "the process that imports the application died before it was done")
            return
        logs.say(
            logger,
            logging.ERROR,
            log_events.SPAWNER_DIED,
            "the spawner (pid {spawner}) has died and its children with it; starting another in {wait_s:.1f} s",
            spawner=report["pid"],
            wait_s=report["wait_s"],
        )

    # -- the consumer --------------------------------------------------------------------------------------

    def _notify(self, notice: Notice) -> None:
        """Called by the consumer thread."""
        self._notices.append(notice)
        self._bell.post("look")

    def _on_notice(self, notice: Notice) -> None:
        _ON_NOTICE[notice.kind](self, notice)

    def _on_noticed_signal(self, notice: Notice) -> None:
        self._on_signal(notice.data["number"])

    def _on_ready(self, notice: Notice) -> None:
        assert self._crew is not None
        serial = notice.data["serial"]
        self._crew.ready(serial)
        if self._upkeep is not None:
            self._upkeep.is_born(serial, notice.data.get("kib"))

    def _on_boot_failed(self, notice: Notice) -> None:
        assert self._crew is not None
        self._crew.boot_failed(notice.data["serial"], notice.data["traceback"])

    def _on_connected(self, notice: Notice) -> None:
        self._is_connected = True

    def _on_signal_child(self, notice: Notice) -> None:
        if self._crew is None:
            return
        serial, number = notice.data["serial"], notice.data["number"]
        self._crew.signal(notice.slot, serial, number)
        if self._life.is_stopping and number == signal.SIGKILL:
            self._crew.forget_unborn(serial)  # the spawner may be busy importing the application

    def _on_stirred(self, notice: Notice) -> None:
        """The turn alone was asked for: companions look at its end."""

    def _on_spent(self, notice: Notice) -> None:
        if self._crew is not None:
            self._crew.replace(notice.data["serial"], "max_tasks")

    def _on_dry(self, notice: Notice) -> None:
        logs.say(logger, logging.INFO, log_events.BURST_DONE, "burst: the queues are empty")
        self._life.move(Event.TERM)

    def _on_drained(self, notice: Notice) -> None:
        self._life.drained(notice.data.get("cut", ()), notice.data.get("left", 0))

    def _on_refused(self, notice: Notice) -> None:
        self._life.has_consumer = False
        self._refuse(ExitCode.CONFIG, notice.data["error"])

    def _on_unreachable(self, notice: Notice) -> None:
        self._life.has_consumer = False
        self._life.fail(ExitCode.UNREACHABLE)

    def _on_deaf(self, notice: Notice) -> None:
        self._life.fail(ExitCode.INTERNAL)

    def _on_failed(self, notice: Notice) -> None:
        """The consumer's thread has ended with an error: another one goes on, and is told where the worker is."""
        assert self._lifeline is not None
        assert self._crew is not None
        if self._lifeline.restart(self._crew.serials()):
            logs.say(
                logger,
                logging.WARNING,
                log_events.CONSUMER_RESTARTED,
                "the consumer is started anew; running tasks go on",
            )
            self._crew.tell_again()
            for kind in self._life.orders():
                self._mailbox.post(kind)
            return
        logs.say(
            logger,
            logging.CRITICAL,
            log_events.CONSUMER_GIVEN_UP,
            "the consumer keeps failing: the worker ends, what it holds is left to its lease",
        )
        self._life.has_consumer = False
        self._life.fail(ExitCode.INTERNAL)

    def _leave_hung(self, lifeline: Lifeline) -> NoReturn:
        assert self._crew is not None
        assert self._made is not None
        hang = Hang(
            self.phase,
            since_s=lifeline.timeout_s,
            is_connecting=lifeline.is_connecting,
            spawners=[spawner.pid for spawner in self._generations.all()],
            children=self._crew.processes(),
            are_all_known=self._crew.are_known_that_run(self._table),
            size=self._crew.size,
            owner=self._made.owner,
            give_back=self._made.give_back,
            pipe=self._pipe,
            image=self._image,
        )
        leave(hang)

    # -- reconcile and leave -------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        if self._upkeep is not None:
            self._upkeep.tend(may_scale=self.phase is Phase.RUNNING)
        if self._crew is None or self._life.is_stopping:
            return
        self._generations.tend(self._crew)
        if self._crew.is_hopeless:
            self._refuse(ExitCode.APP, "children cannot start: giving up", self._crew.boot_trouble)
            return
        if self._generations.current is not None:
            self._crew.fill(self._generations.current)
        if self.phase is Phase.STARTING and self._is_connected and self._crew.is_ready:
            took_s = self._clock.monotonic() - self._started_at
            logs.say(
                logger,
                logging.INFO,
                log_events.READY,
                "ready: {children} children after {took_s:.2f} s",
                children=len(self._crew.pids()),
                took_s=took_s,
            )
            self._view.is_ready = True
            self._life.move(Event.READY)

    def _leave(self) -> None:
        """Stop the thread, then the children, then the spawner: so nothing is dispatched to the dead."""
        if self._lifeline is not None:
            self._mailbox.post("stop")
            self._lifeline.join(_CLOSE_S if self._life.has_drained else _CUT_OFF_S)
        self._kill()
        self._generations.close(SPAWNER_S)
        self.close()

    def _cut_runs(self) -> None:
        if self._crew is not None:
            self._crew.cut(self._table)

    def _end_children(self) -> None:
        if self._crew is not None:
            self._crew.end()

    def _kill(self) -> None:
        if self._crew is not None:
            self._crew.kill()

    def close(self) -> None:
        """Let go of every descriptor; nothing can be done with this master afterwards."""
        self._pipe.close(is_last=True)
        for companion in self._companions:
            companion.close()
        for closing in (self._bell, self._mailbox, self._table):
            closing.close()


_ON_SIGNAL: Final[dict[signal.Signals, Callable[[Master, Crew], None]]] = {
    signal.SIGHUP: Master._reload,
    signal.SIGUSR1: Master._dump_stacks,
    signal.SIGUSR2: Master._reopen_logs,
    signal.SIGTTIN: Master._grow,
    signal.SIGTTOU: Master._shrink,
}
_ON_REPORT: Final[dict[str, Callable[[Master, dict[str, Any]], None]]] = {
    "loaded": Master._on_loaded,
    "failed": Master._on_load_failed,
    "forked": Master._on_forked,
    "exited": Master._on_exited,
    "gone": Master._on_spawner_gone,
}
_ON_NOTICE: Final[dict[str, Callable[[Master, Notice], None]]] = {
    "signal": Master._on_noticed_signal,
    "ready": Master._on_ready,
    "boot_failed": Master._on_boot_failed,
    "connected": Master._on_connected,
    "shed": Master._on_shed,
    "stirred": Master._on_stirred,
    "spent": Master._on_spent,
    "signal_child": Master._on_signal_child,
    "dry": Master._on_dry,
    "drained": Master._on_drained,
    "refused": Master._on_refused,
    "unreachable": Master._on_unreachable,
    "deaf": Master._on_deaf,
    "failed": Master._on_failed,
}
