"""The master: hears signals, spawners and the consumer thread, and has each of them lead to what follows from it.

One turn, in this order:
1. wait for a signal, the spawner, the consumer, or the phase's deadline;
2. signals: TERM, INT, QUIT, TSTP and CONT → events → phase (`worker/lifecycle.py`); HUP, TTIN, TTOU, USR1 and USR2 →
   the pool is reloaded, grown or shrunk, shows its stacks, reopens its logs (`worker/pool_signals.py`);
3. what the spawner reports: application loaded or broken, children born and dead;
4. what the consumer notices (`worker/news.py`): children ready, broker reached, drained, failed;
5. end a phase whose time is over; leave a consumer thread that hangs (`worker/hang.py`);
6. reconcile: fill empty slots, replace spent children, notice that all are ready;
7. companions look at what has changed (`core/companion.py`).

Made by `worker/run.py`. Runs in the main thread and owns everything but what the consumer thread owns
(`worker/consumer.py`).
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

from ..core import log_events, logs
from ..core.clock import Clock
from ..core.companion import Companion
from ..core.errors import ConfigError
from ..pool import SlotTable
from ..signals import SignalPipe, reap_strangers
from .death import Death
from .exitcodes import ExitCode
from .generations import Generations, StartSpawner
from .hang import leave
from .image import Image, Legacy
from .lifecycle import Lifecycle
from .mailbox import Mailbox, readable
from .news import News
from .notices import Notice
from .phases import SIGNAL_EVENTS, Event, Phase, remapped
from .plan import Plan
from .pool_signals import POOL_SIGNALS, act_upon
from .spawning import Spawner
from .title import Title
from .view import View
from .works import Works

logger = logging.getLogger("qworker.worker")

#: How long spawners may take to leave; one that imports the application is not waited for.
SPAWNER_S: Final = 2.0
#: How long the consumer thread may take to close its connections at the very end.
_CLOSE_S: Final = 5.0
#: The same when it could not even give its messages back in time: it probably waits for the broker.
_CUT_OFF_S: Final = 0.5
#: Meanwhile companions look so often whether they are asked.
_ANSWER_S: Final = 0.02


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
        self._clock = clock
        # The init of a container has every orphan for a child, an heir what the image before it has left.
        is_foster = os.getpid() == 1 or bool(self._legacy.replaced_at)
        self._pipe = SignalPipe([*SIGNAL_EVENTS, *POOL_SIGNALS, *([signal.SIGCHLD] if is_foster else [])])
        self._events = remapped(SIGNAL_EVENTS, os.environ.get("REMAP_SIGTERM"))
        self._mailbox = Mailbox()
        self._notices: deque[Notice] = deque()
        self._bell = Mailbox()
        self._table = SlotTable.create()
        self._title = Title(node)
        self._life = Lifecycle(self._mailbox, self._table, clock, self._cut_runs, self._end_children, self._title.phase)
        self._generations = Generations(start_spawner, self._table, clock)
        self._works: Works | None = None
        self._news: News | None = None
        self._view = View(node, self._life, self._generations, self._table, clock)
        self._companions = list(companions)
        self.has_loaded = False
        self._started_at = clock.monotonic()

    @property
    def phase(self) -> Phase:
        """Where the worker is in its life."""
        return self._life.phase

    @property
    def has_started(self) -> bool:
        """Whether the application is loaded and what it asks for could be made."""
        return self._works is not None

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
        ready = readable(self._watched(), self._timeout_s())
        for number in self._pipe.take():
            self._on_signal(number)
        self._hear_spawners(ready)
        self._hear_consumer()
        self._life.look_at_clock()
        self._look_for_hang()
        self._reconcile()
        for companion in self._companions:
            companion.turn()

    # -- what a turn waits for -----------------------------------------------------------------------------

    def _watched(self) -> list[SignalPipe | Mailbox | Spawner | int]:
        watched: list[SignalPipe | Mailbox | Spawner | int] = [self._pipe, self._bell, *self._generations.all()]
        for companion in self._companions:
            watched.extend(companion.descriptors())
        return watched

    def _timeout_s(self) -> float | None:
        """Until the first moment at which something is due; None: only when something comes."""
        moments = [self._life.deadline, *(companion.next_at() for companion in self._companions)]
        if self._works is not None:
            moments.append(self._works.next_at(is_stopping=self._life.is_stopping))
        if not self._life.is_stopping:
            moments.append(self._generations.next_at())
        at = min(moments)
        return None if at == math.inf else max(0.0, at - self._clock.monotonic())

    # -- signals -------------------------------------------------------------------------------------------

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            reap_strangers({spawner.pid for spawner in self._generations.all()})
            return
        logs.say(logger, logging.INFO, log_events.SIGNAL, "received {signal}", signal=number.name)
        if number in self._events:
            self._life.move(self._events[number])
        else:
            act_upon(number, self.phase, self._generations, self._works)

    # -- the spawner ---------------------------------------------------------------------------------------

    def _hear_spawners(self, ready: Collection[int]) -> None:
        spawners = [spawner for spawner in self._generations.all() if spawner.fileno() in ready]
        for report in self._generations.hear(spawners, self._works.crew if self._works is not None else None):
            _ON_REPORT[report["event"]](self, report)

    def _on_loaded(self, report: dict[str, Any]) -> None:
        if self.has_loaded or self._life.is_stopping:
            return
        self.has_loaded = True
        try:
            plan = self._plan(report["config"], self._table, self._mailbox, self._notify)
        except ConfigError as error:
            self._life.refuse(ExitCode.CONFIG, str(error))
            return
        self._life.soft_s = plan.soft_s
        plan.consumer.title = self._title
        self._works = Works.of(plan, self._legacy.size or plan.size, self._mailbox, self._clock)
        self._news = News(self._works, self._life, self._mailbox)
        self._works.lifeline.start()
        self._life.has_consumer = True
        self._view.sees(self._works.crew, plan.consumer, plan.about)

    def _on_load_failed(self, report: dict[str, Any]) -> None:
        code = ExitCode.CONFIG if report["kind"] == "config" else ExitCode.APP
        self._life.refuse(code, report["text"], report["details"])

    def _on_forked(self, report: dict[str, Any]) -> None:
        assert self._works is not None
        self._works.crew.born(report["slot"], report["pid"])
        if self.phase in (Phase.COLD, Phase.HARD):  # asked for just before the end
            self._works.crew.kill()

    def _on_not_forked(self, report: dict[str, Any]) -> None:
        assert self._works is not None
        self._works.crew.not_born(report["slot"], report["why"])

    def _on_exited(self, report: dict[str, Any]) -> None:
        assert self._works is not None
        death = Death(report["status"], report["peak_kib"], is_ours=self.phase is Phase.HARD)
        self._works.crew.died(report["slot"], report["pid"], death)

    def _on_spawner_gone(self, report: dict[str, Any]) -> None:
        """Before the application was loaded that is a start that failed."""
        if self._life.is_stopping:
            return
        if not self.has_loaded:
            self._life.refuse(ExitCode.APP, "the process that imports the application died before it was done")
            return
        _say_spawner_died(report)

    # -- the consumer --------------------------------------------------------------------------------------

    def _notify(self, notice: Notice) -> None:
        """Called by the consumer thread."""
        self._notices.append(notice)
        self._bell.post("look")

    def _hear_consumer(self) -> None:
        self._bell.clear()
        while self._notices:
            notice = self._notices.popleft()
            if notice.kind == "signal":  # nobody's news: another thread has asked for it
                self._on_signal(notice.data["number"])
            elif self._news is not None:
                self._news.hear(notice)

    def _look_for_hang(self) -> None:
        works = self._works
        if works is not None and works.lifeline.is_hung():
            spawners = [spawner.pid for spawner in self._generations.all()]
            leave(works.hang(self.phase, spawners, self._table, self._pipe, self._image))

    # -- reconcile and leave -------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        if self._works is None:
            return
        crew = self._works.crew
        self._works.upkeep.tend(may_scale=self.phase is Phase.RUNNING)
        if self._life.is_stopping:
            return
        self._generations.tend(crew)
        if crew.is_hopeless:
            self._life.refuse(ExitCode.APP, "children cannot start: giving up", crew.boot_trouble)
            return
        if self._generations.current is not None:
            crew.fill(self._generations.current)
        if self.phase is Phase.STARTING and self._news is not None and self._news.is_connected and crew.is_ready:
            _say_ready(len(crew.pids()), self._clock.monotonic() - self._started_at)
            self._view.is_ready = True
            self._life.move(Event.READY)

    def _leave(self) -> None:
        """Stop the thread, then the children, then the spawner: so nothing is dispatched to the dead."""
        if self._works is not None:
            self._mailbox.post("stop")
            close_s = _CLOSE_S if self._life.has_drained else _CUT_OFF_S
            self._await(partial(self._works.lifeline.join, close_s))
            self._works.crew.kill()
        self._await(partial(self._generations.close, SPAWNER_S))
        self.close()

    def _await(self, ending: Callable[[], None]) -> None:
        """Have a thread wait for an end; until then companions have their turns, so that who asks is answered."""
        waiting = threading.Thread(target=ending, name="leaving", daemon=True)
        try:
            waiting.start()
        except RuntimeError:  # the system gives this process no more threads
            ending()
            return
        while waiting.is_alive():
            for companion in self._companions:
                companion.turn()
            waiting.join(_ANSWER_S)

    def _cut_runs(self) -> None:
        if self._works is not None:
            self._works.crew.cut(self._table)

    def _end_children(self) -> None:
        if self._works is not None:
            self._works.crew.end()

    def close(self) -> None:
        """Let go of every descriptor; nothing can be done with this master afterwards."""
        self._pipe.close(is_last=True)
        for companion in self._companions:
            companion.close()
        for closing in (self._bell, self._mailbox, self._table):
            closing.close()


def _say_spawner_died(report: dict[str, Any]) -> None:
    logs.say(
        logger,
        logging.ERROR,
        log_events.SPAWNER_DIED,
        "the spawner (pid {spawner}) has died and its children with it; starting another in {wait_s:.1f} s",
        spawner=report["pid"],
        wait_s=report["wait_s"],
    )


def _say_ready(children: int, took_s: float) -> None:
    logs.say(
        logger,
        logging.INFO,
        log_events.READY,
        "ready: {children} children after {took_s:.2f} s",
        children=children,
        took_s=took_s,
    )


_ON_REPORT: Final[dict[str, Callable[[Master, dict[str, Any]], None]]] = {
    "loaded": Master._on_loaded,
    "failed": Master._on_load_failed,
    "forked": Master._on_forked,
    "not_forked": Master._on_not_forked,
    "exited": Master._on_exited,
    "gone": Master._on_spawner_gone,
}
