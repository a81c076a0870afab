"""A worker's transports on SQS within the test's own process: as a worker has them, and such that wait for SQS.

A busy machine must not decide what a test sees: moto may take seconds for an answer. So these have much time for each
request, and their long polls claim for a whole lease, unless a test is about the short claims.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from qworker.transports import Ack, Delivery, Rejection, Settled
from qworker.transports.sqs import SqsTransport

from .waiting import wait_until

#: Nothing waits longer than a test; a poll that finds nothing comes back at once.
QUICK = {"wait_time_seconds": 0, "polling_interval": 0.02}
_CALM = {"socket_timeout": 30}

#: Opens transports: `OpenWorker` by the queues they consume, `OpenSqs` by their owner; options as keywords.
OpenWorker = Callable[..., SqsTransport]
OpenSqs = Callable[..., "PatientTransport"]


class PatientTransport(SqsTransport):
    """Verbs that return when SQS has done what was asked for, so that a test can look at once."""

    def __init__(self, url: str, options: Mapping[str, Any], owner: str, lease_s: float) -> None:
        super().__init__(url, {**QUICK, **_CALM, **options}, owner=owner, lease_s=lease_s)
        claim_long(self)

    def reserve(self, queues: Sequence[str], limit: int, *, arm: bool = False) -> list[Delivery]:
        got: list[Delivery] = []
        self._end_polls()  # begun by SqsTransport.reserve: they do not know what has been settled since
        since = time.monotonic()
        while len(got) < limit:
            more = super().reserve(queues, limit - len(got), arm=arm)
            got += more
            if more:
                since = time.monotonic()
            elif self._is_empty(queues, since):
                break
            time.sleep(0.002)
        if got or not arm:
            self.stop_fetching()
            self._end_polls()
            self._flush()
        return got

    def _end_polls(self) -> None:
        """Let none be under way: one that finds nothing would tell the next call that nothing is there."""
        wait_until(lambda: not any(lane.polls for lane in self._polls._lanes.values()), "no poll is under way")

    def _is_empty(self, queues: Sequence[str], since: float) -> bool:
        """Whether nothing is there: of polls side by side one may have found what another one missed."""
        with self._polls._cond:
            if any(lane.asked or lane.buffer for lane in self._polls._lanes.values()):
                return False
            return all(self._polls.has_heard(name, time.monotonic() - since) for name in queues)

    def ack(self, acks: Sequence[Ack]) -> Settled:
        return self._done(super().ack(acks))

    def requeue(self, deliveries: Sequence[Delivery], *, crashed: bool = False, due: float | None = None) -> Settled:
        return self._done(super().requeue(deliveries, crashed=crashed, due=due))

    def reject(self, rejections: Sequence[Rejection]) -> Settled:
        return self._done(super().reject(rejections))

    def _done(self, settled: Settled) -> Settled:
        self._flush()
        return settled

    def _flush(self) -> None:
        assert self._outbox.flush(60), "SQS has done what it was told"


def claim_long(transport: SqsTransport) -> None:
    """Let long polls claim for a whole lease: two seconds may pass while a machine stands still."""
    transport._polls._short_s = transport._lease_s


@contextmanager
def opened_on(url: str) -> Iterator[tuple[OpenWorker, OpenSqs]]:
    """What opens and connects transports on this broker; all of them are closed with the block."""
    opened: list[SqsTransport] = []

    def keep(transport: Any) -> Any:
        opened.append(transport)
        transport.connect()
        return transport

    def worker(*queues: str, lease_s: float = 30.0, claims_short: bool = False, **options: Any) -> SqsTransport:
        transport = SqsTransport(url, {**_CALM, **options}, owner="w/1", lease_s=lease_s, queues=queues)
        if not claims_short:
            claim_long(transport)
        return keep(transport)

    def patient(owner: str = "w/1", lease_s: float = 30.0, **options: Any) -> PatientTransport:
        return keep(PatientTransport(url, options, owner, lease_s))

    try:
        yield worker, patient
    finally:
        for transport in opened:
            transport.close()
