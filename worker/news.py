"""What the master does with the news that the consumer thread has for it: of children, of the broker, of its own end.

Each kind of notice (`worker/notices.py`) has a row in the table below. Called by the master (`worker/master.py`) on
each turn, in its main thread; acts upon the children (`worker/crew.py`) and the phase (`worker/lifecycle.py`).
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Final

from ..core import log_events, logs
from .crew import MAX_TASKS
from .exitcodes import ExitCode
from .lifecycle import Lifecycle
from .mailbox import Mailbox
from .notices import Notice
from .phases import Event
from .works import Works

logger = logging.getLogger("qworker.worker")


class News:
    """`is_connected`: the consumer has reached the broker."""

    def __init__(self, works: Works, life: Lifecycle, mailbox: Mailbox) -> None:
        self._crew = works.crew
        self._upkeep = works.upkeep
        self._lifeline = works.lifeline
        self._life = life
        self._mailbox = mailbox
        self.is_connected = False

    def hear(self, notice: Notice) -> None:
        """Do what follows from one piece of news."""
        _ON_NOTICE[notice.kind](self, notice)

    # -- of children ---------------------------------------------------------------------------------------

    def _on_ready(self, notice: Notice) -> None:
        serial = notice.data["serial"]
        self._crew.ready(serial)
        self._upkeep.is_born(serial, notice.data.get("kib"))

    def _on_boot_failed(self, notice: Notice) -> None:
        self._crew.boot_failed(notice.data["serial"], notice.data["traceback"])

    def _on_spent(self, notice: Notice) -> None:
        self._crew.replace(notice.data["serial"], MAX_TASKS)

    def _on_shed(self, notice: Notice) -> None:
        self._crew.shed(notice.data["serial"])

    def _on_signal_child(self, notice: Notice) -> None:
        serial, number = notice.data["serial"], notice.data["number"]
        self._crew.signal(notice.slot, serial, number)
        if self._life.is_stopping and number == signal.SIGKILL:
            self._crew.forget_lost(serial)  # the spawner may be busy importing the application, or stuck

    # -- of the broker and of what waits there -------------------------------------------------------------

    def _on_connected(self, notice: Notice) -> None:
        self.is_connected = True

    def _on_refused(self, notice: Notice) -> None:
        self._life.has_consumer = False
        self._life.refuse(ExitCode.CONFIG, notice.data["error"])

    def _on_unreachable(self, notice: Notice) -> None:
        self._life.has_consumer = False
        self._life.fail(ExitCode.UNREACHABLE)

    def _on_deaf(self, notice: Notice) -> None:
        self._life.fail(ExitCode.INTERNAL)

    def _on_stirred(self, notice: Notice) -> None:
        """The turn alone was asked for: companions look at its end."""

    def _on_dry(self, notice: Notice) -> None:
        logs.say(logger, logging.INFO, log_events.BURST_DONE, "burst: the queues are empty")
        self._life.move(Event.TERM)

    # -- of its end ----------------------------------------------------------------------------------------

    def _on_drained(self, notice: Notice) -> None:
        self._life.drained(notice.data.get("cut", ()), notice.data.get("left", 0))

    def _on_failed(self, notice: Notice) -> None:
        """The consumer's thread has ended with an error: another one goes on, and is told where the worker is."""
        if not self._lifeline.restart(self._crew.serials()):
            self._give_up()
            return
        logs.say(
            logger,
            logging.WARNING,
            log_events.CONSUMER_RESTARTED,
            "the consumer is started anew; running tasks go on",
        )
        self._crew.tell_again()
        for kind in self._life.orders():
            self._mailbox.post(kind)

    def _give_up(self) -> None:
        logs.say(
            logger,
            logging.CRITICAL,
            log_events.CONSUMER_GIVEN_UP,
            "the consumer keeps failing: the worker ends, what it holds is left to its lease",
        )
        self._life.has_consumer = False
        self._life.fail(ExitCode.INTERNAL)


_ON_NOTICE: Final[dict[str, Callable[[News, Notice], None]]] = {
    "ready": News._on_ready,
    "boot_failed": News._on_boot_failed,
    "spent": News._on_spent,
    "shed": News._on_shed,
    "signal_child": News._on_signal_child,
    "connected": News._on_connected,
    "refused": News._on_refused,
    "unreachable": News._on_unreachable,
    "deaf": News._on_deaf,
    "stirred": News._on_stirred,
    "dry": News._on_dry,
    "drained": News._on_drained,
    "failed": News._on_failed,
}
