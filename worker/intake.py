"""How much to fetch, and what it means when nothing comes. Owned by the consumer thread, called on each turn."""

from __future__ import annotations

import math
from typing import Final

from ..pool import Pace
from .dispatcher import Dispatcher
from .hearing import Hearing
from .ledger import Ledger
from .link import Link
from .notices import Notices
from .settler import Settler

#: A window of long tasks is refilled one by one: the round trips do not matter there.
SMALL_WINDOW: Final = 32


class Intake:
    """Fetches into the free part of the window. `is_fetching` False: told to be quiet, or to stop.

    `burst`: tell the master as soon as the queues are empty.
    """

    def __init__(
        self,
        link: Link,
        ledger: Ledger,
        settler: Settler,
        dispatcher: Dispatcher,
        pace: Pace,
        notices: Notices,
        deaf_timeout_s: float,
        *,
        burst: bool,
    ) -> None:
        self._link = link
        self._ledger = ledger
        self._settler = settler
        self._dispatcher = dispatcher
        self._pace = pace
        self._notices = notices
        self._deaf_timeout_s = deaf_timeout_s
        self._burst = burst
        self._hearing = Hearing(lambda: not link.is_dry(), deaf_timeout_s)
        self._astray_since = math.inf
        self.is_fetching = True

    @property
    def is_in_doubt(self) -> bool:
        """Whether the connection was made anew for deafness, and nothing has come since. Any thread."""
        return self._hearing.is_in_doubt

    def stop(self) -> None:
        """Fetch nothing more, until `is_fetching` is set again."""
        self.is_fetching = False
        self._link.stop_fetching()

    def next_at(self) -> float:
        """When to call `fetch`, at the latest, while the link is up."""
        return self._hearing.next_at()

    def excuse(self) -> None:
        """There is no connection: nothing can come."""
        self._hearing.is_excused()

    def begin_anew(self) -> None:
        """The records have been brought in order."""
        self.excuse()
        self._astray_since = math.inf

    def want(self) -> int:
        """How many messages the window has room for. A large one is refilled by halves, so that fetches stay large."""
        if not self.is_fetching or self._settler.is_full:
            return 0
        children = min(len(self._dispatcher.working()), self._dispatcher.most_busy)
        window = self._pace.window(children)
        free = window - len(self._ledger)
        enough = window // 2 if window > SMALL_WINDOW else max(1, min(self._link.fetch_size, window // 2))
        return free if free >= enough or (free > 0 and not self._ledger.held) else 0

    def fetch(self, now: float) -> None:
        """Fetch, if there is room, and judge what comes. Raises TransportError."""
        want = self.want()
        if now >= self._hearing.next_at():
            self._link.look_now(now)  # what then still waits is nothing that others took in between
        got = self._link.fetch(want, now)
        if got:
            self._notices.stir()
        if self._hearing.listen(now, want, got):
            self._notices.tell("deaf")
        self._check_books(now)
        if self._burst and not got and not len(self._ledger) and self._dispatcher.working() and self._link.is_dry():
            self._burst = False
            self._notices.tell("dry")

    def _check_books(self, now: float) -> None:
        """Messages that nobody works on, waits with or settles would stay for ever, renewed and unseen."""
        is_busy = self._ledger.held or len(self._settler) or not self._dispatcher.is_idle()
        if is_busy or not len(self._ledger) or not self._deaf_timeout_s:
            self._astray_since = math.inf
            return
        self._astray_since = min(self._astray_since, now)
        if now - self._astray_since >= self._deaf_timeout_s:
            raise RuntimeError(f"{len(self._ledger)} messages are held and in nobody's hands")
