"""Watches for deafness: messages wait, there is room for them, and none comes (P7). Owned by the consumer thread.

Each way to go deaf that is known is mended where it arises. This watches for the others: a proxy that swallows
requests, a server that answers from a stale copy, a defect of our own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from enum import Enum
from typing import Final

from ..core import log_events, logs
from ..core.errors import TransportError

logger = logging.getLogger("qworker.worker")

#: The broker is asked so many times, evenly over the time-out; each time it must say that messages wait.
LOOKS: Final = 3


class Verdict(Enum):
    """What to do about it."""

    HEARS = "hears"
    REBUILD = "rebuild"  # make the connection anew
    GIVE_UP = "give up"  # that has been done, and did not help


class Hearing:
    """`do_messages_wait` asks the broker and may raise TransportError; `timeout_s` 0 = never ask."""

    def __init__(self, do_messages_wait: Callable[[], bool], timeout_s: float) -> None:
        self._do_messages_wait = do_messages_wait
        self._timeout_s = timeout_s
        self._every_s = timeout_s / LOOKS if timeout_s else math.inf
        self._look_at = math.inf
        self._seen = 0
        self._was_rebuilt = False

    def next_at(self) -> float:
        """When `listen` has to be called again."""
        return self._look_at

    @property
    def is_in_doubt(self) -> bool:
        """Whether the connection was made anew for deafness, and nothing has come since. Any thread."""
        return self._was_rebuilt

    def _silence(self, now: float) -> None:
        """Nothing came although there was room."""
        if self._look_at == math.inf:
            self._look_at = now + self._every_s

    def listen(self, now: float, want: int, got: int) -> bool:
        """After a fetch of `want` messages brought `got`: whether this worker is deaf for good, and has to end.

        Raises TransportError, also to have the connection made anew.
        """
        if got:
            self._heard()
        elif want <= 0:
            self.is_excused()
        else:
            self._silence(now)
        verdict = self._check(now)
        if verdict is Verdict.REBUILD:
            raise TransportError(f"messages wait, and for {self._timeout_s:g} s none has come")
        if verdict is Verdict.GIVE_UP:
            logs.say(
                logger,
                logging.CRITICAL,
                log_events.DEAF,
                "messages wait, and none comes although the connection was made anew: this worker is deaf and "
                "ends; what it holds goes back",
            )
        return verdict is Verdict.GIVE_UP

    def _heard(self) -> None:
        """A message came."""
        self._was_rebuilt = False
        self.is_excused()

    def is_excused(self) -> None:
        """Nothing can come now: no room, no connection, told to be quiet."""
        self._look_at, self._seen = math.inf, 0

    def _check(self, now: float) -> Verdict:
        """Ask, when it is time, whether messages wait. Raises TransportError."""
        if now < self._look_at:
            return Verdict.HEARS
        self._look_at = now + self._every_s
        self._seen = self._seen + 1 if self._do_messages_wait() else 0
        # The first look only shows that they wait: the time-out is counted from there.
        if self._seen <= LOOKS:
            return Verdict.HEARS
        self._seen = 0
        if self._was_rebuilt:
            return Verdict.GIVE_UP
        self._was_rebuilt = True
        return Verdict.REBUILD
