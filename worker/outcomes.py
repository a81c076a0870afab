"""What children say, turned into ledger moves and settlements. Owned by the consumer thread.

Also decides what becomes of a message whose child died: interrupted is not counted, crashed is, the third crash is
the last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from ..core import log_events, logs
from ..core.clock import Clock, wall_time
from ..core.errors import TimeLimitExceeded, WorkerLostError
from ..core.tally import Ending, Tally
from ..pool import Pace, Say, Tell, unpack_checkpoint, unpack_limits, unpack_outcome, unpack_state
from ..results import StoredResult
from ..tasks import Action, Outcome, identify, lost_outcome
from ..transports import Envelope
from .death import Death, reason_to_replace
from .dispatcher import Dispatcher, Seat
from .ledger import Entry, Ledger, State
from .settler import Settler
from .suspects import MAX_CRASHES, end_crashed

logger = logging.getLogger("qworker.worker")

_WITHOUT_A_RUN: Final = frozenset({Ending.NONE, Ending.REFUSED, Ending.EXPIRED})


class Outcomes:
    """Hears children.

    `pending_begins` may start when the broker has acked them (at-most-once) or confirmed that they are ours.
    """

    def __init__(
        self,
        ledger: Ledger,
        settler: Settler,
        dispatcher: Dispatcher,
        pace: Pace,
        clock: Clock,
        on_ready: Callable[[Seat], None],
        on_boot_failed: Callable[[Seat, str], None],
        on_limits: Callable[[Seat, int, tuple[float, float, bool, bool]], None],
        final_tasks: frozenset[str] = frozenset(),
        tally: Tally | None = None,
    ) -> None:
        self._tally = tally or Tally()
        self._ledger = ledger
        self._settler = settler
        self._dispatcher = dispatcher
        self._pace = pace
        self._clock = clock
        self._on_ready = on_ready
        self._on_boot_failed = on_boot_failed
        self._on_limits = on_limits
        self._final_tasks = final_tasks  # reject_on_worker_lost=False: a crash is their failure
        self.pending_begins: list[tuple[Seat, Entry, Say]] = []
        self.is_draining = False
        self.is_cutting = False  # what runs has been told to end
        self.done = 0
        self.cut: list[str] = []

    def hear(self, seat: Seat) -> bool:
        """Deal with everything this child has said; False when it has gone."""
        try:
            for kind, seq, payload in seat.channel.records():
                try:
                    self._on_record(seat, kind, seq, payload)
                except Exception as error:  # whatever one message brings about must stay with that message
                    self._contain(seq, error)
        except EOFError:
            return False
        return True

    def _on_record(self, seat: Seat, kind: Say, seq: int, payload: bytes) -> None:
        if kind is Say.DONE:
            self._on_done(seat, seq, payload)
        elif kind is Say.BEGIN or kind is Say.ASK:
            self._on_begin(seat, seq, kind)
        elif kind is Say.FETCH:
            entry = self._ledger.get(seq)
            seat.channel.tell(Tell.PAYLOAD, seq, entry.delivery.raw if entry else b"")
        elif kind is Say.STATE:
            task_id, meta = unpack_state(payload)
            self._settler.state(self._ledger.get(seq), StoredResult(task_id, meta, False))
        elif kind is Say.CHECKPOINT:
            entry = self._ledger.get(seq)
            if entry is not None:
                entry.checkpoint = unpack_checkpoint(payload)
        elif kind is Say.LIMITS:
            self._on_limits(seat, seq, unpack_limits(payload))
        elif kind is Say.READY:
            seat.is_ready = seat.was_ready = True
            seat.born_kib = int(payload) if payload else None
            self._on_ready(seat)
        else:
            self._on_boot_failed(seat, payload.decode("utf-8", "replace"))

    def _contain(self, seq: int, error: Exception) -> None:
        """What a child said about a message cannot be handled: that message ends here, the worker goes on."""
        logs.say(
            logger,
            logging.ERROR,
            log_events.REPORT_UNHANDLED,
            "what a child reports about message {seq} cannot be handled; it goes to the dead letters",
            seq=seq,
            exc_info=error,
        )
        entry = self._ledger.get(seq)
        if entry is None or entry.state is State.SETTLING:
            return
        lost = lost_outcome(entry.delivery.raw, WorkerLostError(f"internal error: {error!r}"), {}, self._final_tasks)
        if lost.meta is not None:
            self._settler.result(entry, StoredResult(lost.task_id, lost.meta, False))
        self._settler.reject(entry, "internal_error", lost.details)

    def _on_done(self, seat: Seat, seq: int, payload: bytes) -> None:
        seat.load -= 1
        seat.progress_at = now = self._clock.monotonic()
        outcome = unpack_outcome(payload)
        entry = self._ledger.get(seq)
        if entry is None or entry.state is State.SETTLING:
            return
        self.done += 1
        self._pace.saw(outcome.busy_s)
        if entry.fenced:
            self._drop(entry)
        else:
            self._count(entry, outcome, now)
            self._settle(entry, outcome)

    def _count(self, entry: Entry, outcome: Outcome, now: float) -> None:
        ending = outcome.ending
        if ending in _WITHOUT_A_RUN:
            if ending:
                name = outcome.task.decode("utf-8", "replace") or outcome.details.get("task")
                self._tally.noted(name, entry.delivery.queue, ending)
            return
        wait_s = outcome.wait_s
        if wait_s < 0.0:  # the message does not say when it was published
            sent_at = entry.delivery.sent_at
            wait_s = max(0.0, (wall_time() - sent_at if sent_at else now - entry.came_at) - outcome.busy_s)
        self._tally.ended(
            outcome.task, entry.delivery.queue, ending, outcome.busy_s, wait_s, outcome.cpu_s, outcome.peak_kib
        )

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        if outcome.meta is not None:
            self._settler.result(entry, StoredResult(outcome.task_id, outcome.meta, outcome.is_success))
        for task_id, meta in outcome.others:
            self._settler.result(entry, StoredResult(task_id, meta, False))
        if outcome.action is Action.ACK:
            if self.is_cutting and any(envelope.front for envelope in outcome.successors):  # back, with a checkpoint
                self.cut.append(outcome.task_id)
            self._settler.ack(entry, outcome.successors)
        elif outcome.action is Action.REJECT:
            self._settler.reject(entry, outcome.reason, outcome.details)
        elif outcome.action is Action.PARK:
            self._settler.requeue(entry, due=outcome.due)
        else:
            # Only a stop cuts a run that can still say so; this thread may not have heard of the stop yet.
            self._note_cut(entry, outcome.task_id, is_by_stop=True)
            self._settler.requeue(entry)

    def _on_begin(self, seat: Seat, seq: int, kind: Say) -> None:
        entry = self._ledger.get(seq)
        if entry is None or entry.fenced:
            seat.channel.tell(Tell.NO, seq)
            if entry is not None:
                self._drop(entry)
        elif self.is_draining:
            self._refuse(seat, entry)
        else:
            self.pending_begins.append((seat, entry, kind))

    def grant_begins(self) -> None:
        """Ack the at-most-once tasks that wait, then let them start. Raises TransportError; they go on waiting then.

        Called right after the lease was renewed if that was due, so that `fenced` is up to date."""
        while self.pending_begins:
            seat, entry, kind = self.pending_begins[0]
            ours = not entry.fenced and (kind is Say.ASK or self._settler.ack_now(entry))
            seat.channel.tell(Tell.GO if ours else Tell.NO, entry.seq)
            del self.pending_begins[0]
            if not ours:
                self._drop(entry)

    def refuse_begins(self) -> None:
        """The worker stops: at-most-once tasks that have not started go back."""
        for seat, entry, _ in self.pending_begins:
            self._refuse(seat, entry)
        self.pending_begins.clear()

    def _refuse(self, seat: Seat, entry: Entry) -> None:
        seat.channel.tell(Tell.NO, entry.seq)
        self._settler.requeue(entry)

    def _drop(self, entry: Entry) -> None:
        """Somebody else's by now: it leaves the ledger and nothing is told to anybody."""
        self._ledger.settle(entry)
        self._ledger.forget(entry)

    def bury(self, seat: Seat, death: Death, why: str = "") -> None:
        """A child has ended: hear its last words, take back what it had not read, and see what it was running.

        `why` it was told to leave, if another one replaces it.
        """
        # Whatever it has said is in the socket: nothing is waited for, not even end-of-file, because a process that a
        # task has left behind may hold the other end open for ever.
        while seat.channel.has_news() and self.hear(seat):
            pass
        self.pending_begins = [begin for begin in self.pending_begins if begin[0] is not seat]
        self._ledger.put_back(self._dispatcher.take_back(seat))
        for entry in self._ledger.sent_to(seat.channel.serial):
            if entry.fenced:
                self._drop(entry)
            elif entry.seq == seat.condemned_for:
                self._condemned(seat, entry, death)
            elif death.is_ours or seat.condemned_for:
                self._interrupted(entry)
            else:
                self._crashed(entry, replace(death, stack=seat.channel.stack() or seat.stack))
        del self._dispatcher.seats[seat.channel.serial]
        seat.channel.close()
        reason = reason_to_replace(seat, death, why)
        if reason and not self.is_draining:
            self._tally.restarted(reason)

    def _interrupted(self, entry: Entry) -> None:
        lost = lost_outcome(entry.delivery.raw, WorkerLostError("cut by a cold stop"), {}, self._final_tasks)
        self._note(entry, Ending.CUT)
        self._note_cut(entry, lost.task_id, is_by_stop=self.is_draining)
        if entry.acked and lost.meta is not None:
            self._settler.result(entry, StoredResult(lost.task_id, lost.meta, False))
        if entry.checkpoint is None or entry.acked:
            self._settler.requeue(entry)
        else:
            priority, raw = entry.checkpoint
            self._settler.ack(entry, [Envelope(entry.delivery.queue, raw, priority, front=True)])

    def _note_cut(self, entry: Entry, task_id: str, *, is_by_stop: bool) -> None:
        fate = "it is not run again (acks_late=False)" if entry.acked else "it is to run again"
        logs.say(
            logger,
            logging.WARNING,
            log_events.TASK_CUT,
            "Task {task}[{id}] was cut: {fate}",
            task=identify(entry.delivery.raw).task,
            id=task_id,
            fate=fate,
        )
        if is_by_stop:
            self.cut.append(task_id)

    def _condemned(self, seat: Seat, entry: Entry, death: Death) -> None:
        if seat.memory_cause:
            self._crashed(entry, replace(death, why=seat.memory_cause, stack=seat.stack))
        else:
            self._timed_out(seat, entry, death)

    def _timed_out(self, seat: Seat, entry: Entry, death: Death) -> None:
        """Killed at its hard limit: a failure, unless the task asks for another try."""
        assert seat.limits is not None
        limit = seat.limits[1]
        if not limit.acks_on_timeout:
            why = f"{death.cause()} at its hard time limit of {limit.hard_s:g} s"
            self._crashed(entry, replace(death, why=why, stack=seat.stack))
            return
        lost = lost_outcome(entry.delivery.raw, TimeLimitExceeded(limit.hard_s), {}, self._final_tasks)
        self._note(entry, Ending.TIMED_OUT)
        if limit.stores and lost.meta is not None:
            self._settler.result(entry, StoredResult(lost.task_id, lost.meta, False))
        self._settler.ack(entry)

    def _crashed(self, entry: Entry, death: Death) -> None:
        self._note(entry, Ending.CRASHED)
        crashes = entry.delivery.crashes + 1
        details = self._details(death, crashes)
        text = f"the child running it died of {death.cause()}"
        lost = lost_outcome(entry.delivery.raw, WorkerLostError(text), details, self._final_tasks)
        retried = not entry.acked and lost.action is Action.REQUEUE and crashes < MAX_CRASHES
        fate = (
            "requeued" if retried else "not run again" if entry.acked or lost.action is Action.ACK else "dead-lettered"
        )
        peak = "" if death.peak_kib is None else f"peak memory {death.peak_kib} KiB, "
        logs.say(
            logger,
            logging.ERROR,
            log_events.TASK_LOST,
            "Task {task}[{id}] lost: {cause}, {peak}crash {crashes} of {most}, {fate}",
            task=lost.details.get("task"),
            id=lost.task_id,
            cause=text,
            peak=peak,
            crashes=crashes,
            most=MAX_CRASHES,
            fate=fate,
        )
        if retried:
            self._tally.recovered("child_lost", 1)
            self._settler.requeue(entry, crashed=True)
        else:
            end_crashed(entry, lost, self._settler)

    def _note(self, entry: Entry, ending: Ending) -> None:
        self._tally.noted(identify(entry.delivery.raw).task, entry.delivery.queue, ending)

    def _details(self, death: Death, crashes: int) -> dict[str, Any]:
        details = {"cause": death.cause(), "status": death.status, "peak_kib": death.peak_kib, "crashes": crashes}
        return details | ({"stack": death.stack} if death.stack else {})
