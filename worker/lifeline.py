"""The consumer's thread, as the master sees it: started, started again after an error, watched by its beat.

Owned by the master's main thread. A thread that has ended leaves its records where the error struck; the consumer
brings them in order and a new thread goes on with them. One that hangs cannot be ended from outside: `worker/hang.py`.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Collection
from typing import Final

from ..core.clock import Clock
from ..signals import blocked
from .consumer import Consumer
from .phases import SIGNAL_EVENTS

logger = logging.getLogger("qworker.worker")

#: A thread that ends with an error for the third time within this many seconds is not started again.
MAX_ENDS: Final = 3
ENDS_WITHIN_S: Final = 60.0
#: The beat is looked at so often in one time-out. Looks are counted, not seconds: after a pause of the whole process
#: the thread has its turn before it is judged.
LOOKS: Final = 4
#: Finding a broker's address may take the resolver this many time-outs.
_PATIENCE_CONNECTING: Final = 4


class Lifeline:
    """`timeout_s`: a thread without a turn for so long hangs; 0 = never judged."""

    def __init__(self, consumer: Consumer, clock: Clock, timeout_s: float) -> None:
        self._consumer = consumer
        self._clock = clock
        self.timeout_s = timeout_s
        self._every_s = timeout_s / LOOKS if timeout_s else math.inf
        self._look_at = math.inf
        self._beat = -math.inf
        self._silent = 0
        self._ends: deque[float] = deque(maxlen=MAX_ENDS)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start a thread."""
        self._thread = threading.Thread(target=self._consumer.run, name="consumer", daemon=True)
        with blocked(SIGNAL_EVENTS):  # signals are the main thread's: what it holds back, nobody else shall take
            self._thread.start()
        self._look_at = self._clock.monotonic() + self._every_s

    def restart(self, living: Collection[int]) -> bool:
        """After the thread has ended with an error: start another on the same records; False when it ends too often.

        `living` are the serial numbers of children that live.
        """
        now = self._clock.monotonic()
        self._ends.append(now)
        if len(self._ends) == MAX_ENDS and now - self._ends[0] < ENDS_WITHIN_S:
            return False
        self.join(None)
        self._consumer.revive(living)
        self.start()
        return True

    def next_at(self) -> float:
        """When to call `is_hung` again."""
        return self._look_at

    def is_hung(self) -> bool:
        """Whether the thread has not turned for the whole time-out. Looks only when it is time."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + self._every_s
        beat = self._consumer.beat
        self._silent = self._silent + 1 if beat == self._beat else 0
        self._beat = beat
        return self._silent >= LOOKS * (_PATIENCE_CONNECTING if self.is_connecting else 1)

    @property
    def is_connecting(self) -> bool:
        """Whether the thread is looking for the broker."""
        return self._consumer.is_connecting

    def join(self, timeout_s: float | None) -> None:
        """Wait for the thread's end, at most so long; for one that stays in a call, say what it leaves behind."""
        self._look_at = math.inf
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._consumer.say_what_is_left()
