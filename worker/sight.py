"""What waits on the queues, for whoever watches: asked of the broker only while somebody wants to know.

`ask` belongs to the threads of companions, `look` to the consumer thread, which alone may use the transport. A question
costs the broker one round trip (on SQS one request a queue), so answers are kept for some seconds.
"""

from __future__ import annotations

import threading
from typing import Final

from ..core.clock import Clock, wall_time
from ..core.companion import QueueSight
from ..core.errors import TransportError
from .link import Link
from .mailbox import Mailbox

#: An answer younger than this is given again.
FRESH_S: Final = 5.0
#: A broker that refuses such questions is asked ever later, up to this.
_LONGEST_S: Final = 600.0


class Sight:
    """The last look at the queues."""

    def __init__(self, link: Link, mailbox: Mailbox, clock: Clock) -> None:
        self._link = link
        self._mailbox = mailbox
        self._clock = clock
        self._seen: QueueSight | None = None
        self._answered = threading.Event()
        self._is_wanted = False
        self._failures = 0
        self._not_before = 0.0

    def ask(self, wait_s: float) -> QueueSight | None:
        """The last look, a fresh one if it comes within `wait_s`; None while the broker is out of reach. Any thread."""
        if not self._link.is_up:
            return None
        now = self._clock.monotonic()
        if (self._seen is None or now - self._seen.seen_at >= FRESH_S) and now >= self._not_before:
            self._answered.clear()
            self._is_wanted = True
            self._mailbox.post("nothing")
            self._answered.wait(wait_s)
        return self._seen if self._link.is_up else None

    def look(self, now: float) -> None:
        """Answer, if somebody has asked. The consumer's thread. Raises TransportError when the connection breaks."""
        if not self._is_wanted or now < self._not_before:
            return
        self._is_wanted = False
        try:
            depths, oldest = self._link.look_at_queues()
        except TransportError:
            self._failures += 1
            self._not_before = now + min(_LONGEST_S, FRESH_S * 2.0 ** min(self._failures, 10))
            self._seen = None
            self._answered.set()
            raise
        self._failures = 0
        clock = wall_time()
        ages = {queue: max(0.0, clock - at) for queue, at in oldest.items()}
        self._seen = QueueSight(depths, ages, now)
        self._answered.set()
