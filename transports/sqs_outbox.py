"""What is to be told to SQS: deletes, visibility changes, sends; ten to a request, several requests at a time.

Called by settling, by `extend` and by publishing. Threads of its own carry the requests, as many as there is work for;
each has a connection. What fails for a moment (throttling, a broken network) is tried again, entry by entry, ever
later; what fails for good is told to whoever asked, by the operation's `done`.

An operation waits up to 50 ms for company (3 ms if it is urgent), unless there are ten.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Final

from ..core import log_events, logs
from ..core.clock import SystemClock
from ..core.errors import QWorkerError, TransportError
from .sqs_clients import Clients
from .sqs_errors import SqsRefusal, Trouble
from .sqs_ops import ACTIONS, BATCH, SEND, VISIBILITY, Op, Result, fits_one_request, is_unsent, trouble_in
from .sqs_queues import DEFAULT_MAX_BYTES, Queue

logger = logging.getLogger("qworker.transports")

#: A finished task's ack waits so long for company; DESIGN promises no more.
WINDOW_S: Final = 0.05
#: What is urgent is mostly put one by one in a loop: one request each would take longer than this.
URGENT_S: Final = 0.003
#: At 15 ms a request these carry 5000 deletes a second.
_MOST_THREADS: Final = 8
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0
#: Somebody who waits for so many operations waits twice as long.
_MANY: Final = 1000
#: A request that is refused for a moment is repeated so often when somebody waits for it.
_PATIENCE: Final = 4
#: A queue that is said not to exist is asked so often: what was created, or changed, is known everywhere a bit later.
_MISSING_TRIES: Final = 5


class Outbox:
    """Collects and sends. Any thread. `on_trouble` hears of errors that concern the way to SQS, not one message."""

    def __init__(self, clients: Clients, on_trouble: Callable[[QWorkerError], None], *, patience_s: float) -> None:
        self._clients = clients
        self._on_trouble = on_trouble
        self._patience_s = patience_s
        self._rng = random.Random()
        self._boottime = SystemClock().boottime
        self._cond = threading.Condition()
        self._waiting: dict[tuple[str, Queue], deque[Op]] = {}
        self._later: list[tuple[float, int, list[Op]]] = []
        self._numbers = count()
        self._in_order: set[tuple[str, Queue]] = set()  # FIFO sends under way: the next one follows, never overtakes
        self._pending = 0
        self._threads = self._idle = 0
        self._is_closing = self._is_closed = False

    def __len__(self) -> int:
        """How many operations are not finished."""
        return self._pending

    def put(self, ops: Iterable[Op]) -> None:
        """Take over operations; they are sent in this order, as far as one thread can tell."""
        with self._cond:
            now = time.monotonic()
            for op in ops:
                op.since = now
                self._waiting.setdefault((op.kind, op.queue), deque()).append(op)
                self._pending += 1
            self._man()
            self._cond.notify_all()

    def ask(self, ops: Sequence[Op]) -> list[Result]:
        """Carry these out and return how each ended. A single request is made in the caller's thread.

        A network error ends the call for the operations concerned; throttling is waited out for a moment.
        """
        results: list[Result] = [TransportError("SQS has not answered in time")] * len(ops)
        left = threading.Semaphore(0)

        def hear(at: int, result: Result) -> None:
            results[at] = result
            left.release()

        for at, op in enumerate(ops):
            op.done = lambda result, at=at: hear(at, result)  # type: ignore[misc]
            op.is_urgent, op.most_tries = True, _PATIENCE
        if fits_one_request(ops):
            self._ask_here(list(ops))
            return results
        self.put(ops)
        until = time.monotonic() + self._patience_s * (1 + len(ops) / _MANY)
        for _ in ops:
            if not left.acquire(timeout=max(0.0, until - time.monotonic())):
                break
        return results

    def flush(self, limit_s: float) -> bool:
        """Send everything without waiting for company; whether all was done within `limit_s`."""
        until = time.monotonic() + limit_s
        with self._cond:
            self._is_closing = True
            self._man()
            self._cond.notify_all()
            while self._pending and time.monotonic() < until:
                self._cond.wait(until - time.monotonic())
            self._is_closing = False
            return not self._pending

    def close(self) -> None:
        """End the threads; what is not sent is left to its claim."""
        with self._cond:
            self._is_closed = True
            self._cond.notify_all()

    # ---- threads ----

    def _man(self) -> None:
        """One more thread if there is work that nobody idle can take."""
        if not self._idle and self._threads < _MOST_THREADS and self._pending and not self._is_closed:
            self._threads += 1
            threading.Thread(target=self._work, name=f"sqs-outbox-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._cond:
                batch, wait_s = self._take(time.monotonic())
                while not batch and not self._is_closed:
                    self._idle += 1
                    self._cond.wait(wait_s)
                    self._idle -= 1
                    batch, wait_s = self._take(time.monotonic())
                if not batch:
                    self._threads -= 1
                    return
                if wait_s is not None and wait_s <= 0:
                    self._man()  # there is more than this thread can carry
                    self._cond.notify()
            self._send(batch)

    def _take(self, now: float) -> tuple[list[Op], float | None]:
        """A batch that is due, and in how many seconds the next one is (None = nothing waits)."""
        while self._later and (self._later[0][0] <= now):
            again = heapq.heappop(self._later)[2]
            key = (again[0].kind, again[0].queue)
            self._in_order.discard(key)
            self._waiting.setdefault(key, deque()).extendleft(reversed(again))
        next_at = self._later[0][0] if self._later else float("inf")
        chosen: list[Op] = []
        for key in list(self._waiting):
            ops = self._waiting[key]
            if not ops:
                del self._waiting[key]
                continue
            if key in self._in_order:
                continue
            due = self._due_at(ops)
            if due <= now and not chosen:
                chosen = self._batch(key, ops)
                if ops:
                    due = self._due_at(ops) if key not in self._in_order else float("inf")
                else:
                    continue
            next_at = min(next_at, due)
        return chosen, None if next_at == float("inf") else max(0.0, next_at - now)

    def _due_at(self, ops: deque[Op]) -> float:
        if self._is_closing or len(ops) >= BATCH or ops[0].tries:
            return 0.0
        if ops[0].is_urgent or ops[-1].is_urgent:
            return ops[0].since + URGENT_S
        return ops[0].since + WINDOW_S

    def _batch(self, key: tuple[str, Queue], ops: deque[Op]) -> list[Op]:
        most = key[1].traits.max_bytes if key[1].has_traits else DEFAULT_MAX_BYTES
        batch = [ops.popleft()]
        weight = batch[0].weight
        while ops and len(batch) < BATCH and not batch[0].is_alone and not ops[0].is_alone:
            if weight + ops[0].weight > most:
                break
            batch.append(ops.popleft())
            weight += batch[-1].weight
        if key[0] == SEND and key[1].is_fifo:
            self._in_order.add(key)
        return batch

    # ---- requests ----

    def _send(self, batch: list[Op]) -> None:
        try:
            timely = [op for op in batch if not self._is_too_late(op)]
            again = self._request(timely) if timely else []
        except Exception as error:  # a defect must not end this thread: acks would wait for ever
            logs.say(
                logger, logging.ERROR, log_events.ANSWER_UNHANDLED, "an answer of SQS cannot be handled", exc_info=True
            )
            unknown = TransportError(f"an answer of SQS cannot be handled: {error!r}")
            again = [op for op in batch if self._again(op, unknown, is_lasting=True)]
        with self._cond:
            if again:  # together, so that throttling does not make ten requests of one; FIFO's go before what waits
                at = time.monotonic() + self._wait_s(again[0])
                heapq.heappush(self._later, (at, next(self._numbers), again))
            else:
                self._in_order.discard((batch[0].kind, batch[0].queue))
            self._pending -= len(batch) - len(again)
            self._cond.notify_all()

    def _ask_here(self, ops: list[Op]) -> None:
        while ops:
            ops = self._request(ops)
            if ops:
                time.sleep(self._wait_s(ops[0]))

    def _wait_s(self, op: Op) -> float:
        if op.is_alone and op.tries <= 1:
            return 0.0
        wait_s = float(min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(op.tries - 1, 10)))
        return wait_s * self._rng.uniform(0.5, 1.0)

    def _request(self, batch: list[Op]) -> list[Op]:
        """Make one request, tell everybody whose end is known; return those that are to be tried again."""
        action, doing = ACTIONS[batch[0].kind]
        queue = batch[0].queue
        entries = [{**op.entry, "Id": str(at)} for at, op in enumerate(batch)]
        try:
            answer = self._clients.call(
                queue.account, action, f"{doing} {queue.name}", {"QueueUrl": queue.url, "Entries": entries}
            )
        except SqsRefusal as refusal:
            return self._refused(batch, refusal)
        except QWorkerError as error:
            self._on_trouble(error)
            return [op for op in batch if self._again(op, error, is_lasting=True)]
        done = {entry["Id"] for entry in answer.get("Successful") or ()}
        failed = {entry["Id"]: entry for entry in answer.get("Failed") or ()}
        again = []
        for at, op in enumerate(batch):
            if str(at) in done:
                op.done(None)
            elif self._again(op, trouble_in(failed.get(str(at)))):
                again.append(op)
        return again

    def _refused(self, batch: list[Op], refusal: SqsRefusal) -> list[Op]:
        """A whole request is refused: for one bad entry, or for a reason that concerns all."""
        if refusal.trouble in (Trouble.GONE, Trouble.WRONG):
            if len(batch) == 1:
                batch[0].done(refusal.trouble)
                return []
            for op in batch:
                op.is_alone = True
            return [op for op in batch if self._again(op, Trouble.BUSY)]
        if refusal.trouble in (Trouble.BUSY, Trouble.MISSING):
            logger.debug("%s", refusal)
            return [op for op in batch if self._again(op, refusal.trouble)]
        self._on_trouble(refusal)
        return [op for op in batch if self._again(op, refusal, is_lasting=True)]

    def _is_too_late(self, op: Op) -> bool:
        if op.until is None or self._boottime() < op.until():
            return False
        op.done(Trouble.LATE)
        return True

    def _again(self, op: Op, result: Result, *, is_lasting: bool = False) -> bool:
        """Whether to try once more; else its end has been told."""
        op.tries += 1
        may_pass = result in (Trouble.BUSY, Trouble.MISSING) or is_lasting
        most_tries = op.most_tries or (_MISSING_TRIES if result is Trouble.MISSING else 0)
        has_tries = not most_tries or (not is_lasting and op.tries < most_tries)
        # It may have been carried out, and somebody else may have the message since.
        is_over = op.kind == VISIBILITY and op.until is not None and is_lasting and not is_unsent(result)
        if may_pass and has_tries and not is_over:
            return True
        op.done(result)
        return False
