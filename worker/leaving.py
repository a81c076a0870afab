"""The end of a stop, as the consumer thread sees it: give back what no child has started, wait for what runs, report.

Owned by the consumer thread. The stop is over when the last child has left and the broker has everything back, or when
a broker that is out of reach has had its time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..core import log_events, logs
from ..tasks import identify
from .giving_back import MOST_NAMED, names_of
from .ledger import Entry, Ledger
from .settler import Settler

logger = logging.getLogger("qworker.worker")

#: After the last task has ended, a stop waits this long for a broker that is out of reach.
LAST_WORDS_S: Final = 10.0


class Leaving:
    """`report` is told once how many messages are left behind."""

    def __init__(self, ledger: Ledger, settler: Settler, report: Callable[[int], None]) -> None:
        self._ledger = ledger
        self._settler = settler
        self._report = report
        self._childless_at = math.inf
        self.has_reported = False

    def give_up_at(self) -> float:
        """When the broker's time is over."""
        return self._childless_at + LAST_WORDS_S

    def release(self) -> None:
        """Requeue the whole buffer."""
        entries = self._ledger.empty_buffer()
        for entry in entries:
            self._settler.requeue(entry)
        ids = _ids(entries)
        for start in range(0, len(ids), MOST_NAMED):
            some = ids[start : start + MOST_NAMED]
            logs.say(
                logger,
                logging.INFO,
                log_events.RELEASED,
                "released {count} messages that no child had started: {ids}",
                count=len(some),
                ids=", ".join(some),
            )

    def tend(self, now: float, *, has_children: bool, has_broker: bool) -> None:
        """On every turn of a stop: release what has come back since; report when nothing is left to do."""
        if self._ledger.held:
            self.release()
        if has_children or self.has_reported:
            return
        self._childless_at = min(self._childless_at, now)
        left = len(self._ledger)
        if not left and not len(self._settler):
            self._end(0)
        elif not has_broker or now >= self.give_up_at():
            self._end(left)

    def _end(self, left: int) -> None:
        if left:
            logs.say(logger, logging.ERROR, log_events.BROKER_UNREACHABLE, "the broker is out of reach")
            self.say_what_is_left()
        self.has_reported = True
        self._report(left)

    def say_what_is_left(self) -> None:
        """For whoever looks for these messages while nobody has them. Any thread, if the owner has come to a halt."""
        ids = _ids(self._ledger.entries())
        if ids:
            logs.say(
                logger,
                logging.ERROR,
                log_events.LEFT_TO_LEASE,
                "{count} messages are left to their lease: {ids}",
                count=len(ids),
                ids=names_of(ids),
            )


def _ids(entries: Iterable[Entry]) -> Sequence[str]:
    return [identify(entry.delivery.raw).task_id or "(no id)" for entry in entries]
