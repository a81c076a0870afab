"""What waits to be told to the result store and the broker, and the telling, in batches. Owned by the consumer thread.

Order in a flush: results, then everything for the broker. A result is therefore stored before its message is acked,
and a crash between the two runs the task again instead of losing its result. What could not be sent stays and is sent
by a later flush; the transport makes repeats harmless.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from ..core import log_events, logs
from ..core.clock import Clock
from ..core.errors import ResultStoreError
from ..core.tally import Tally
from ..results import ResultStore, StoredResult
from ..transports import Ack, Delivery, Envelope, Rejection, Settled, Transport
from .ledger import Entry, Ledger, State

logger = logging.getLogger("qworker.worker")

#: A batch this large is sent at once.
FULL: Final = 256
#: Otherwise what waits is sent this long after the first of it came in, at the latest.
FLUSH_S: Final = 0.005
#: How long a result store may be out of reach before its results are given up, so that messages can be acked.
RESULT_BUDGET_S: Final = 10.0
#: Above this many bytes of results and successors that cannot be sent, no more work is taken on (P9).
FULL_BYTES: Final = 64 * 1024 * 1024
#: What one result costs besides its bytes.
_RESULT_OVERHEAD: Final = 256
_FIRST_RESULT_RETRY_S: Final = 0.5
_LONGEST_RESULT_RETRY_S: Final = 60.0
#: The same while acks wait for it.
_LONGEST_ACK_WAIT_S: Final = 2.0


class Settler:
    """Collects and flushes. `lost` counts messages that turned out to belong to somebody else by then."""

    def __init__(
        self,
        transport: Transport,
        results: ResultStore | None,
        ledger: Ledger,
        clock: Clock,
        tally: Tally | None = None,
    ) -> None:
        self._transport = transport
        self._tally = tally or Tally()
        self._store = results
        self._ledger = ledger
        self._clock = clock
        self._results: list[tuple[Entry | None, StoredResult]] = []
        self._acks: list[tuple[Entry, Ack]] = []
        self._requeues: dict[tuple[bool, float | None], list[Entry]] = {}
        self._rejects: list[tuple[Entry, Rejection]] = []
        self._publish: list[Envelope] = []
        self._since: float | None = None
        self._count = 0
        self._result_bytes = 0
        self._successor_bytes = 0
        self._results_down_since: float | None = None
        self._results_retry_at = 0.0
        self._given_up = False
        self.lost = 0
        self.dropped_results = 0

    def __len__(self) -> int:
        """How many things wait for a flush."""
        return self._count

    def entries(self) -> list[Entry]:
        """Every entry whose end waits to be told to the broker."""
        requeues = [entry for entries in self._requeues.values() for entry in entries]
        return [entry for entry, _ in self._acks] + requeues + [entry for entry, _ in self._rejects]

    def repair(self) -> None:
        """After an error in the middle of a change: have everything that waits sent by the next flush."""
        for entry in self.entries():
            entry.state = State.SETTLING
        self._count = len(self.entries()) + len(self._results) + len(self._publish)
        self._since = self._clock.monotonic() if self._count else None

    @property
    def is_full(self) -> bool:
        """Whether so much waits for a broker or a result store that is away that nothing more may be started."""
        return self._result_bytes + self._successor_bytes >= FULL_BYTES

    def state(self, entry: Entry | None, result: StoredResult) -> None:
        """Store an intermediate state: a task may report any number of them, so none is kept when there is no room."""
        if self.is_full:
            self.dropped_results += 1
        else:
            self.result(entry, result)

    def result(self, entry: Entry | None, result: StoredResult) -> None:
        """Store this, unless `entry` turns out to be somebody else's before it is sent."""
        if self._store is not None:
            self._results.append((entry, result))
            self._result_bytes += len(result.meta) + _RESULT_OVERHEAD
            self._note()

    def ack(self, entry: Entry, successors: Sequence[Envelope] = ()) -> None:
        """Settle for good and publish successors in the same step (on their own if the message is already acked)."""
        self._ledger.settle(entry)
        if entry.acked:
            self._publish.extend(successors)
            self._ledger.forget(entry)
        else:
            self._acks.append((entry, Ack(entry.delivery, successors)))
        self._successor_bytes += sum(len(envelope.raw) for envelope in successors)
        self._note()

    def requeue(self, entry: Entry, *, crashed: bool = False, due: float | None = None) -> None:
        """Give back: to the front of its queue, or with `due` to the delayed set."""
        self._ledger.settle(entry)
        if entry.acked:
            self._ledger.forget(entry)
            return
        self._requeues.setdefault((crashed, due), []).append(entry)
        self._note()

    def reject(self, entry: Entry, reason: str, details: Mapping[str, Any]) -> None:
        """Dead-letter."""
        self._ledger.settle(entry)
        if entry.acked:
            self._ledger.forget(entry)
            return
        self._rejects.append((entry, Rejection(entry.delivery, reason, details)))
        self._tally.buried(entry.delivery.queue, reason)
        self._note()

    def ack_now(self, entry: Entry) -> bool:
        """Ack an at-most-once task that is about to start; False if it is not ours any more. Raises TransportError."""
        if entry.acked:
            return True
        entry.is_acking = True
        entry.acked = not self._transport.ack([Ack(entry.delivery, at_once=True)]).lost
        return entry.acked

    def due_at(self) -> float | None:
        """When the next flush has to happen, on the monotonic clock; None when nothing waits."""
        if self._since is None:
            return None
        return max(self._since + FLUSH_S, self._results_retry_at if self._must_wait() else 0.0)

    def is_due(self, now: float, *, idle: bool) -> bool:
        """Whether to flush now; `idle` says that nothing else is going on, so that waiting would gain nothing."""
        at = self.due_at()
        if at is None:
            return False
        if self._must_wait() and now < self._results_retry_at:
            return False
        return idle or self._count >= FULL or now >= at

    def flush(self) -> None:
        """Send everything. Raises TransportError when the broker is out of reach; what was not sent is kept."""
        if not self._store_results():
            return
        if self._publish:
            self._transport.publish(self._publish)
            self._publish = []
        if self._acks:
            self._settle(self._transport.ack, [a for _, a in self._acks], [e for e, _ in self._acks])
            self._acks = []
        self._publish_refused()
        # The youngest first: what is pushed to the front last is served first.
        for crashed, due in sorted(self._requeues, key=lambda kind: -self._requeues[kind][0].seq):
            entries = sorted(self._requeues[crashed, due], key=lambda e: e.seq)
            self._settle(
                partial(self._transport.requeue, crashed=crashed, due=due),
                [e.delivery for e in entries],
                entries,
            )
            del self._requeues[crashed, due]
        if self._rejects:
            self._settle(self._transport.reject, [r for _, r in self._rejects], [e for e, _ in self._rejects])
            self._rejects = []
        self._since = None
        self._count = 0
        self._successor_bytes = 0

    def _publish_refused(self) -> None:
        """Bring back at-most-once tasks whose ack was carried out without our knowing, and which then did not start.

        A stop or the child's death came between; now they are acked, and gone from the broker. Sent once only: what
        may have arrived must not be sent again.
        """
        for kind, entries in list(self._requeues.items()):
            for entry in [entry for entry in entries if entry.acked]:
                entries.remove(entry)
                if not entries:
                    del self._requeues[kind]
                self._ledger.forget(entry)
                self._transport.publish([_anew(entry.delivery)])

    def broker_is_back(self) -> None:
        """The broker was away and is there again: its absence held the acks up, not that of the result store."""
        if self._results_down_since is not None:
            self._results_retry_at = now = self._clock.monotonic()
            if not self._given_up:
                self._results_down_since = now

    def _must_wait(self) -> bool:
        """Whether results hold everything up: their store is out of reach and its time is not over."""
        return bool(self._results) and not self._given_up

    def _settle(self, call: Callable[[Any], Settled], what: Sequence[Any], entries: Sequence[Entry]) -> None:
        settled = call(what)
        self.lost += len(settled.lost)
        for entry in entries:
            self._ledger.forget(entry)

    def _store_results(self) -> bool:
        """Store what waits; False when the store is out of reach and its time is not over yet."""
        if not self._results or self._store is None:
            return True
        now = self._clock.monotonic()
        if self._given_up and now < self._results_retry_at:
            self._drop_results()
            return True
        try:
            if self._results_down_since is not None:
                self._store.connect()
            self._store.store([r for e, r in self._results if e is None or not e.fenced])
        except ResultStoreError as error:
            return self._results_failed(error, now)
        if self._results_down_since is not None:
            lost = self.dropped_results
            logs.say(
                logger,
                logging.INFO,
                log_events.RESULTS_BACK,
                "result store is back after {after_s:.1f} s, lost results: {lost}",
                after_s=now - self._results_down_since,
                lost=lost,
            )
        self._results_down_since = None
        self._results_retry_at = 0.0
        self._given_up = False
        self._forget_results()
        return True

    def _results_failed(self, error: ResultStoreError, now: float) -> bool:
        if self._results_down_since is None:
            self._results_down_since = now
            logs.say(
                logger,
                logging.WARNING,
                log_events.RESULTS_AWAY,
                "{error}; acks wait for results, at most {limit_s:g} s",
                error=error,
                limit_s=RESULT_BUDGET_S,
            )
        # A try may take a socket time-out, in which nothing else is done here: those that do become rare.
        after = self._clock.monotonic()
        longest_s = _LONGEST_RESULT_RETRY_S if self._given_up else _LONGEST_ACK_WAIT_S
        wait_s = min(longest_s, max(_FIRST_RESULT_RETRY_S, (after - now) * 10))
        self._results_retry_at = after + wait_s
        if now - self._results_down_since < RESULT_BUDGET_S:
            return False
        if not self._given_up:
            self._given_up = True
            logs.say(
                logger,
                logging.ERROR,
                log_events.RESULTS_LOST,
                "result store still out of reach: results are lost from now on, until it answers; tasks go on",
            )
        self._drop_results()
        return True

    def _drop_results(self) -> None:
        self.dropped_results += len(self._results)
        self._forget_results()

    def _forget_results(self) -> None:
        self._results = []
        self._result_bytes = 0

    def _note(self) -> None:
        self._count += 1
        if self._since is None:
            self._since = self._clock.monotonic()


def _anew(delivery: Delivery) -> Envelope:
    try:
        priority = json.loads(delivery.raw)["properties"]["priority"]
    except (ValueError, LookupError, TypeError):
        priority = 0
    return Envelope(delivery.queue, delivery.raw, priority if isinstance(priority, int) else 0, front=True)
