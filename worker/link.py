"""The link to the broker: connected or not, when to try again, when to renew, look after the delayed, and fetch.

Owned by the consumer thread. Every call to the transport that belongs to no single message is made here.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

from ..core import log_events, logs
from ..core.clock import Clock
from ..core.errors import TransportError
from ..core.tally import Tally
from ..transports import Delivery, Transport
from .ledger import Ledger

logger = logging.getLogger("qworker.worker")

#: With a wake-up armed the queues are still looked at this often: a lost wake-up costs seconds, not messages.
SAFETY_POLL_S: Final = 2.0
#: Dead owners are looked for, and due messages moved, at least this often.
MAINTAIN_S: Final = 5.0
#: The share of a lease during which it is certain on this side as well.
CERTAIN_SHARE: Final = 0.8
_FIRST_WAIT_S: Final = 0.5
_ASK_AGAIN_S: Final = 0.02
_LONGEST_WAIT_S: Final = 15.0
#: A connection that breaks sooner has never really worked: the next one is not made at once, but ever later.
_WORKED_S: Final = 10.0


class Link:
    """Connection state and timers around one transport. `max_attempts` None = try for ever."""

    def __init__(
        self,
        transport: Transport,
        queues: Sequence[str],
        ledger: Ledger,
        clock: Clock,
        *,
        lease_s: float,
        max_attempts: int | None,
        rng: random.Random,
        horizon: Callable[[float], None],
        broker_base: Callable[[float], None] = lambda base: None,
        purge: bool = False,
        is_prepared: Callable[[], bool] = lambda: True,
        tally: Tally | None = None,
    ) -> None:
        self.transport = transport
        self._tally = tally or Tally()
        self._queues = list(queues)
        self._ledger = ledger
        self._clock = clock
        self._lease_s = lease_s
        self._renew_every_s = lease_s / 3
        self._horizon = horizon
        self._tell_base = broker_base
        self._base: float | None = None
        self._purge = purge
        self._is_prepared = is_prepared
        self._certain_until = 0.0
        self._maintain_every_s = min(MAINTAIN_S, lease_s / 6)
        self._max_attempts = max_attempts
        self._rng = rng
        self.is_up = False
        self.was_up = False
        self.attempts = 0
        self.trouble = ""  # why the last attempt or call has failed
        self._try_at = 0.0
        self._up_at = 0.0
        self._breaks = 0  # connections in a row that have broken at once
        self._renew_at = 0.0
        self._maintain_at = 0.0
        self._look_at = 0.0  # when to look at the queues again
        self._arm = False  # whether the next look also arms the wake-up
        self.fetched_at = clock.monotonic()  # when the broker last answered a fetch

    def connect_if_due(self, now: float) -> bool:
        """Try to connect when it is time; True when the link has just come up.

        Raises TransportError when that was the last attempt. Before the first one everything else has to be prepared.
        """
        if self.is_up or now < self._try_at:
            return False
        if not self._is_prepared():
            self._try_at = now + _ASK_AGAIN_S
            return False
        try:
            self.transport.connect()
            self._adopt()
            purged = self.transport.purge(self._queues) if self._purge else 0
        except TransportError as error:
            self._failed(error)
            return False
        if self._purge:
            self._purge = False
            logs.say(
                logger,
                logging.WARNING,
                log_events.PURGED,
                "--purge: deleted {count} waiting messages from {queues}",
                count=purged,
                queues=", ".join(self._queues),
            )
        if self.attempts:
            logs.say(
                logger,
                logging.INFO,
                log_events.BROKER_CONNECTED,
                "connected to the broker after {attempts} failed attempts",
                attempts=self.attempts,
            )
        elif self.was_up:
            logs.say(logger, logging.INFO, log_events.BROKER_CONNECTED, "connected to the broker again")
        if not self.was_up:
            self._warn()
        self.is_up = self.was_up = True
        self.attempts = 0
        self._up_at = now
        self._renew_at = now + self._renew_every_s
        self._maintain_at = self._look_at = now
        return True

    def broke(self, error: TransportError) -> None:
        """A call has failed: what is held stays held, the connection is made anew."""
        logs.say(
            logger, logging.WARNING, log_events.BROKER_LOST, "{error}; reconnecting, running tasks go on", error=error
        )
        self.is_up = False
        self.trouble = str(error)
        self._arm = False
        now = self._clock.monotonic()
        self._breaks = self._breaks + 1 if now - self._up_at < _WORKED_S else 0
        self._try_at = now + (self._wait_s(self._breaks - 1) if self._breaks > 1 else 0.0)

    def _warn(self) -> None:
        """Say once what the broker's settings put at risk."""
        try:
            texts = self.transport.warnings()
        except TransportError as error:  # the next call finds out whether the connection has broken
            logger.debug("the broker's settings were not looked at: %s", error)
            return
        for text in texts:
            logs.say(logger, logging.WARNING, log_events.BROKER_ADVICE, "{advice}", advice=text)

    def _failed(self, error: TransportError) -> None:
        self.attempts += 1
        self.trouble = str(error)
        if self._max_attempts is not None and self.attempts > self._max_attempts:
            raise TransportError(f"{error}; giving up after {self.attempts} attempts")
        wait_s = self._wait_s(self.attempts)
        self._try_at = self._clock.monotonic() + wait_s
        of = f" of {self._max_attempts}" if self._max_attempts is not None else ""
        logs.say(
            logger,
            logging.ERROR,
            log_events.BROKER_RETRY,
            "{error}; attempt {attempt}{of}, next in {wait_s:.1f} s",
            error=error,
            attempt=self.attempts,
            of=of,
            wait_s=wait_s,
        )

    def _wait_s(self, attempts: int) -> float:
        """How long to wait after so many failures in a row."""
        # Well within a lease: after an outage everybody has half a lease to be heard of again.
        longest = min(_LONGEST_WAIT_S, self._lease_s / 4, _FIRST_WAIT_S * 2.0 ** min(attempts - 1, 10))
        return longest * self._rng.uniform(0.5, 1.0)

    def _adopt(self) -> None:
        """Renew what we hold, and take over what a reserve whose reply was lost has taken in our name."""
        self._extend()
        orphans = self.transport.recall({e.delivery.tag for e in self._ledger.entries()})
        if orphans:
            logs.say(
                logger,
                logging.WARNING,
                log_events.RECALLED,
                "found {count} messages that were reserved while the connection broke",
                count=len(orphans),
            )
            self._tally.recovered("reply_lost", len(orphans))
            self._ledger.receive(orphans, self._clock.monotonic())

    def be_certain(self) -> None:
        """Before results are stored: learn what is still ours, if this process may have stood still for too long."""
        if self._clock.boottime() >= self._certain_until:
            self._extend()

    def look_now(self, now: float) -> None:
        """Have the next `fetch` look at the queues."""
        self._look_at = now

    def tend(self, now: float) -> None:
        """Renew the lease and look after delayed and orphaned messages, each when it is due."""
        if now >= self._renew_at:
            self._extend()
            self._renew_at = now + self._renew_every_s
        if now >= self._maintain_at:
            did = self.transport.maintain()
            every_s = self._maintain_every_s
            next_s = 0.0 if did.more else min(every_s, _or(did.next_due_s, every_s), _or(did.look_again_s, every_s))
            self._maintain_at = now + max(next_s, 0.0)
            if did.recovered:
                self._tally.recovered("worker_lost", did.recovered)
                logs.say(
                    logger,
                    logging.WARNING,
                    log_events.RECOVERED,
                    "recovered {count} messages of a worker that is gone",
                    count=did.recovered,
                )
            if did.moved or did.recovered:
                self._look_at = now

    def _extend(self) -> None:
        """Renew, and move the moment until which children may start what they have without asking.

        Counted from before the call was sent, with a margin: the broker's own count starts later.
        """
        sent_at = self._clock.boottime()
        renewed = self.transport.extend([e.delivery for e in self._ledger.entries()])
        if renewed.now is not None:
            self._follow(renewed.now, sent_at, self._clock.boottime())
        self._fence(renewed.lost)
        self._certain_until = sent_at + self._lease_s * CERTAIN_SHARE
        self._horizon(self._certain_until)

    def _follow(self, broker_now: float, sent_at: float, heard_at: float) -> None:
        """Learn the broker's time of day; what is known already stays while it can be right."""
        base = broker_now - (sent_at + heard_at) / 2
        if self._base is None or abs(base - self._base) > (heard_at - sent_at) / 2:
            self._base = base
            self._tell_base(base)

    def _fence(self, lost: Sequence[str]) -> None:
        """Mark what the broker has given to somebody else: what waits here is dropped, what runs counts for nothing."""
        if not lost:
            return
        gone = set(lost)
        fenced = [e for e in self._ledger.entries() if e.delivery.tag in gone and not e.acked and not e.fenced]
        is_certain = self._clock.boottime() < self._certain_until
        if is_certain:
            # Nobody can have taken them: the ack of a starting at-most-once task was carried out, only its reply was
            # lost.
            for entry in fenced:
                entry.acked = entry.is_acking
            fenced = [e for e in fenced if not e.acked]
        for entry in fenced:
            entry.fenced = True
        if fenced:
            _tell_lost(len(fenced), is_certain)

    def woke(self, now: float) -> None:
        """The wake-up descriptor was readable: something may have arrived, or a due time has changed."""
        self.transport.drain_wake()
        self._look_at = self._maintain_at = now

    def fetch(self, want: int, now: float) -> int:
        """Reserve up to `want` messages when there is a reason to look; return how many came."""
        if want <= 0 or now < self._look_at:
            return 0
        deliveries = self._reserve(want)
        self.fetched_at = self._clock.monotonic()
        self._ledger.receive(deliveries, self.fetched_at)
        if deliveries:
            # A full answer means that there is more; a short one that the queues are probably empty now.
            self._arm = len(deliveries) < want
        elif self._arm:
            self._look_at = now + _or(self.transport.capabilities.idle_poll_s, SAFETY_POLL_S)
        else:
            self._arm = True
        return len(deliveries)

    def stop_fetching(self) -> None:
        """Nothing is wanted for now: what was fetched ahead goes back. Harmless while the link is down."""
        if self.is_up:
            try:
                self.transport.reserve(self._queues, 0)
            except TransportError as error:
                self.broke(error)

    def _reserve(self, want: int) -> list[Delivery]:
        limit = min(want, self.transport.capabilities.max_batch)
        return self.transport.reserve(self._queues, limit, arm=self._arm)

    def is_dry(self) -> bool:
        """Whether nothing waits on any of our queues now. Raises TransportError."""
        return not any(self.transport.depths(self._queues).values())

    def look_at_queues(self) -> tuple[dict[str, int], dict[str, float]]:
        """How many messages wait on each of our queues, and when the oldest was published. Raises TransportError."""
        return self.transport.depths(self._queues), self.transport.oldest(self._queues)

    def next_at(self, *, fetching: bool) -> float:
        """The next moment at which this link wants to be called."""
        if not self.is_up:
            return self._try_at
        at = min(self._renew_at, self._maintain_at)
        return min(at, self._look_at) if fetching else at

    @property
    def fetch_size(self) -> int:
        """So many messages cost as much to fetch as one."""
        return self.transport.capabilities.fetch_size

    def wake_fd(self) -> int | None:
        """The descriptor to select on, while the link is up."""
        return self.transport.wake_fd() if self.is_up else None


def _tell_lost(count: int, is_certain: bool) -> None:
    if is_certain:
        why = "messages held here are no longer on the broker: it was emptied, or has forgotten what it was told"
    else:
        why = "messages: lease lost (this worker was silent for too long), others run them now"
    logs.say(
        logger,
        logging.ERROR,
        log_events.LEASE_LOST,
        "{count} {why}; what still runs here is not acked and its results are not stored",
        count=count,
        why=why,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
