"""Receiving: threads that poll the queues for as many messages as there is room for, and the buffer they fill.

The consumer thread says how many it wants (`take`), and gets what has come; a pipe wakes it when there is more. One
thread polls one queue at a time. The rules, all of them in `_next_poll`:

1. Polls that find something at once and the buffer together are never more than what the consumer wants.
2. An idle queue has one long poll, which claims for a short time only: a stop may have to abandon it.
3. A full answer makes a queue busy. Its polls then do not wait, claim for the whole lease, and several run at a time.
4. Queues take turns by `queue_order_strategy`. Long polls keep no places from busy queues, and with fewer places than
   queues each is asked for one message all the same; what is too much goes back at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..core import log_events, logs
from ..core.clock import SystemClock
from ..core.errors import QWorkerError, TransportError
from .sqs_bell import Bell
from .sqs_claims import Claim, Claims
from .sqs_clients import Clients
from .sqs_errors import SqsRefusal, Trouble
from .sqs_lanes import Lane, receive
from .sqs_ops import BATCH
from .sqs_order import Turns
from .sqs_queues import Queue

logger = logging.getLogger("qworker.transports")

#: A long poll claims for so long: what an abandoned one still catches is back after that.
SHORT_S: Final = 2
#: Polls of one queue side by side, and threads in all beyond one for each queue.
MOST_POLLS: Final = 8
#: Behind the first of their groups at most so many wait here; more are given back.
MOST_BEHIND: Final = 100
#: A buffer with more bytes is emptied before anything else is polled for.
MOST_BYTES: Final = 16 * 1024 * 1024
#: After a long poll the queue is left alone for a moment, so that six of 10 s fit into a minute.
_PAUSE_S: Final = 0.1


class Polls:
    """The pollers and the buffer. `take`, `stop` and `close` are the consumer thread's; `wake` is called by pollers.

    `release` gives a claim back; `adopt` judges what was received and returns what may be delivered; `lengthen` renews
    short claims and returns those that are still ours; `unpack` fetches large payloads and returns what has come.
    """

    def __init__(
        self,
        clients: Clients,
        claims: Claims,
        options: Mapping[str, Any],
        *,
        lease_s: int,
        adopt: Callable[[list[Claim]], list[Claim]],
        release: Callable[[Sequence[Claim]], None],
        lengthen: Callable[[list[Claim]], list[Claim]],
        unpack: Callable[[list[Claim]], list[Claim]],
        on_trouble: Callable[[QWorkerError], None],
    ) -> None:
        self._clients = clients
        self._claims = claims
        self._lease_s = lease_s
        self._wait_s = int(options.get("wait_time_seconds", 10))
        self._pause_s: float = options.get("polling_interval", _PAUSE_S if self._wait_s else 1.0)
        self._adopt = adopt
        self._release = release
        self._lengthen = lengthen
        self._unpack = unpack
        self._on_trouble = on_trouble
        self._boottime = SystemClock().boottime
        self._cond = threading.Condition()
        self._turns = Turns(options)
        self._lanes: dict[str, Lane] = {}
        self._demand = 0
        self._least = 1  # so many places are worth a poll
        self._threads = self._idle = 0
        self._under_way = 0  # polls of which not all is done that follows from them
        self._listening = 0  # those among them that wait for an answer which claims for a short time only
        self.has_polled = False  # whether any poll has ever been answered
        self._is_stopped = True
        self._is_closed = False
        self._bell = Bell()
        self._short_s = min(SHORT_S, lease_s)

    # ---- the consumer's side ----

    def fileno(self) -> int:
        """The descriptor that becomes readable when something has come."""
        if self._bell.is_hung:
            return self._bell.fileno()
        fd = self._bell.fileno()
        with self._cond:
            has_come = any(lane.buffer for lane in self._lanes.values())
        if has_come:  # when nobody could be woken
            self.wake()
        return fd

    def drain(self) -> None:
        """Forget what made it readable."""
        self._bell.drain()

    def watch(self, queues: Sequence[Queue]) -> None:
        """Poll these queues from now on, and no others."""
        with self._cond:
            names = {queue.name for queue in queues}
            for queue in queues:
                self._lanes.setdefault(queue.name, Lane(queue)).is_active = True
            for lane in self._lanes.values():
                lane.is_active = lane.queue.name in names

    def take(self, names: Sequence[str], limit: int) -> list[Claim]:
        """Return what has come, up to `limit`, and let the rest of `limit` be polled for."""
        with self._cond:
            self._is_stopped = False
            taken = self._turns.take({name: self._lanes[name].buffer for name in names}, names, limit)
            # What polls under way have been asked for keeps its places.
            self._demand = limit - len(taken)
            # A few that are left over are not worth a new request: whoever needs them says so by the next call.
            self._least = max(1, min(BATCH, limit // 2)) if taken else 1
            self._man()
            self._cond.notify_all()
            return taken

    def stop(self) -> list[Claim]:
        """Poll no more; return what is in the buffer. What polls under way bring is given back by them."""
        with self._cond:
            self._is_stopped, self._demand = True, 0
            left = [claim for lane in self._lanes.values() for claim in lane.buffer]
            for lane in self._lanes.values():
                lane.buffer.clear()
            return left

    def put(self, claims: Sequence[Claim], *, front: bool = False) -> None:
        """Lay claims into the buffer and wake the consumer; with `front` they are the next ones."""
        if not claims:
            return
        with self._cond:
            if self._is_stopped:
                left: Sequence[Claim] = claims
            else:
                left = ()
                for claim in claims:
                    lane = self._lanes.setdefault(claim.queue.name, Lane(claim.queue))
                    (lane.buffer.appendleft if front else lane.buffer.append)(claim)
        if left:
            self._release(left)
        self.wake()

    def forget(self, claim: Claim) -> None:
        """It is lost: do not deliver it."""
        with self._cond:
            lane = self._lanes.get(claim.queue.name)
            if lane is not None and claim in lane.buffer:
                lane.buffer.remove(claim)

    def has_heard(self, name: str, within_s: float) -> bool:
        """Whether this queue is known to be empty: a poll has come back so lately, or waits for something to come."""
        lane = self._lanes.get(name)
        return lane is not None and lane.has_heard(time.monotonic(), within_s)

    def is_alone_in_trouble(self, name: str) -> bool:
        """Whether this queue refuses its polls while others answer."""
        lane = self._lanes.get(name)
        return lane is not None and bool(lane.failures) and not self._is_trouble_everywhere()

    def retry_now(self) -> None:
        """The network is back. What is wanted stays, so that what polls under way bring need not go back."""
        with self._cond:
            for lane in self._lanes.values():
                lane.next_at = 0.0
            self._cond.notify_all()

    def wake(self) -> None:
        """Make the descriptor readable."""
        self._bell.ring()

    def close(self, grace_s: float, most_s: float) -> None:
        """End the threads. Long polls are waited for `grace_s`, then abandoned.

        What may hold messages for a whole lease is waited for up to `most_s`, until it has given them back.
        """
        began = time.monotonic()
        with self._cond:
            self._is_closed = self._is_stopped = True
            self._demand = 0
            self._cond.notify_all()
            while self._under_way:
                limit_s = most_s if self._under_way > self._listening else grace_s
                left_s = began + limit_s - time.monotonic()
                if left_s <= 0:
                    break
                self._cond.wait(left_s)
        self._bell.close()

    # ---- the threads ----

    def _man(self) -> None:
        """A thread for each poll that could begin now."""
        most = len(self._lanes) + MOST_POLLS
        while self._demand and self._idle == 0 and self._threads < most and not self._is_closed:
            self._threads += 1
            self._idle += 1  # until it has looked around
            threading.Thread(target=self._run, name=f"sqs-poll-{self._threads}", daemon=True).start()

    def _run(self) -> None:
        with self._cond:
            self._idle -= 1
        while True:
            with self._cond:
                poll, wait_s = self._next_poll(time.monotonic())
                while poll is None:
                    if self._is_closed:
                        self._threads -= 1
                        return
                    self._idle += 1
                    self._cond.wait(wait_s)
                    self._idle -= 1
                    poll, wait_s = self._next_poll(time.monotonic())
                lane, ask, is_long = poll
                lane.begin(ask, time.monotonic(), is_long=is_long, wait_s=self._wait_s)
                self._under_way += 1
                if self._loose() > 0:
                    self._man()
                    self._cond.notify()
            self._poll(lane, ask, is_long)
            with self._cond:
                self._under_way -= 1
                if self._is_closed:
                    self._cond.notify_all()

    def _loose(self) -> int:
        """How many more may be asked for. A long poll takes no place: nobody knows whether it will bring anything."""
        return self._demand - sum(lane.asked + len(lane.buffer) for lane in self._lanes.values())

    def _next_poll(self, now: float) -> tuple[tuple[Lane, int, bool] | None, float | None]:
        """The poll to begin now (queue, number, whether it may wait), or in how many seconds there may be one."""
        buffered = sum(len(lane.buffer) for lane in self._lanes.values())
        if self._is_closed or self._is_stopped or self._demand <= buffered or self._is_heavy():
            return None, None
        loose = self._loose()
        spare = loose - sum(lane.awaited for lane in self._lanes.values())
        wanting = [lane for lane in self._lanes.values() if lane.is_active and self._may_poll(lane)]
        ready = {lane.queue.name: lane for lane in wanting if lane.next_at <= now}
        bells = [lane for lane in ready.values() if not lane.polls and not lane.is_busy]
        busy = [name for name, lane in self._lanes.items() if lane.is_active and lane.is_busy]
        turn = self._turns.next(ready, busy) if loose >= self._least else None
        if turn is not None:
            return (ready[turn], min(BATCH, loose), False), None
        if bells:
            # Asked for one message at least, whether or not there is a place: it is the only way to hear of any.
            most = 1 if busy else BATCH
            return (bells[0], max(1, min(most, spare - len(bells) + 1)), True), None
        later = min((lane.next_at for lane in wanting if lane.next_at > now), default=None)
        return None, None if later is None else later - now

    def _is_heavy(self) -> bool:
        """Whether the buffer holds so many bytes that it has to be emptied first (P9)."""
        return sum(len(claim.received.raw) for lane in self._lanes.values() for claim in lane.buffer) > MOST_BYTES

    def _may_poll(self, lane: Lane) -> bool:
        # One more beside others has to be worth a request.
        return lane.polls == 0 or (lane.is_busy and lane.polls < MOST_POLLS and self._loose() >= BATCH)

    def _poll(self, lane: Lane, ask: int, is_long: bool) -> None:
        """One request, and what follows from it. Its places are taken until what it has brought is in the buffer."""
        got: list[Claim] = []
        keep: list[Claim] = []
        failure: QWorkerError | None = None
        try:
            got = self._received(lane, ask, is_long)
            keep = self._prepared(got, is_long) if got else []
        except QWorkerError as error:
            failure = error
        except Exception as error:  # whatever an answer holds must not end this thread: nobody would poll any more
            logs.say(
                logger, logging.ERROR, log_events.ANSWER_UNHANDLED, "an answer of SQS cannot be handled", exc_info=True
            )
            failure = TransportError(f"an answer of SQS cannot be handled: {error!r}")
        ready = self._claims.enter(keep)
        with self._cond:
            lane.end(ask, is_long=is_long)
            if failure is None:
                self.has_polled = True
                lane.answered(ask, len(got), time.monotonic(), self._pause_s)
            else:
                lane.failed(time.monotonic())
            too_many = self._lay_down(lane, keep, ready)
            if len(too_many) < len(got) or not got:  # what goes back is no turn that it has had
                self._turns.got(lane.queue.name, len(got) - len(too_many))
            self._cond.notify_all()
        if too_many:
            self._release(too_many)
        if ready:
            self.wake()
        if failure is not None:
            self._tell(lane, failure)

    def _received(self, lane: Lane, ask: int, is_long: bool) -> list[Claim]:
        with self._cond:
            self._listening += is_long
        try:
            visible_s = self._short_s if is_long else self._lease_s
            return receive(self._clients, lane, ask, wait_s=self._wait_s, visible_s=visible_s, is_long=is_long)
        finally:
            with self._cond:
                self._listening -= is_long

    def _tell(self, lane: Lane, failure: QWorkerError) -> None:
        """A broken way to SQS concerns everybody; a queue that refuses is no matter of those that answer."""
        if isinstance(failure, SqsRefusal) and (failure.trouble is Trouble.BUSY or not self._is_trouble_everywhere()):
            lane.complain(failure)
        else:
            self._on_trouble(failure)

    def _is_trouble_everywhere(self) -> bool:
        return all(lane.failures for lane in list(self._lanes.values()) if lane.is_active)

    def _prepared(self, got: list[Claim], is_long: bool) -> list[Claim]:
        """What of it is good, ours for a whole lease, and complete."""
        keep = self._adopt(got)
        is_short = is_long or got[0].until - self._boottime() < self._lease_s / 2  # the answer was long under way
        if is_short and keep and not self._is_stopped:  # what goes back at once stays short, should this process end
            began = time.monotonic()
            keep = self._lengthen(keep)
            # Is the way to SQS too long for such a claim?
            if is_long and (not keep or time.monotonic() - began > self._short_s / 2):
                self._short_s = min(2 * self._short_s, self._lease_s)
        return keep if self._is_stopped or not keep else self._unpack(keep)

    def _lay_down(self, lane: Lane, keep: list[Claim], ready: list[Claim]) -> list[Claim]:
        """Into the buffer, as far as there is room and nobody has said stop; returns what is to go back."""
        buffered = sum(len(other.buffer) for other in self._lanes.values())
        is_stopped = self._is_stopped or not lane.is_active
        room = 0 if is_stopped else max(0, self._demand - buffered)
        lane.buffer.extend(ready[:room])
        too_many = ready[room:]
        if is_stopped or len(self._claims.behind()) > MOST_BEHIND:
            too_many += [claim for claim in keep if claim not in ready]
        return too_many
