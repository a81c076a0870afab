"""A child: reads one message at a time from its work socket, has it run, reports the outcome, until told to leave.

Runs in a process forked by the spawner (`pool/spawner.py`). What a message means is the executor's business
(`tasks/execute.py`); this file owns the order: read → may I? → note in the shared slot → run → report.
Reading a packet is the start of its run: from then on the message is this child's, and a death is blamed on it.
"""

from __future__ import annotations

import os
import select
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.clock import follow_broker
from ..signals import forget_alarm, keep_offering, spare_forks
from ..tasks import Action, Hooks, Outcome, meter
from .slots import SlotTable
from .titles import set_title, since
from .weight import own_weight_kib
from .wire import (
    PACKET,
    PACKET_BYTES,
    RECORD,
    Say,
    Tell,
    Work,
    pack_checkpoint,
    pack_limits,
    pack_outcome,
    pack_record,
    pack_state,
)


class Job(Protocol):
    """One message, decoded and accepted, ready to run."""

    text: str  # `id name`, for ps and status
    ack_first: bool  # at most once: must be acked before it runs
    soft_s: float | None  # time limits; hard ones are the master's to enforce
    hard_s: float | None
    acks_on_timeout: bool
    stores: bool

    def run(self) -> Outcome:
        """Run the task; every ordinary exception has become part of the outcome."""
        ...


class Executor(Protocol):
    """What the child asks of the task room."""

    def prepare(self, raw: bytes, queue: str, crashes: int) -> Job | Outcome:
        """Decode and check; an Outcome when there is nothing to run (bad, expired, not due yet)."""
        ...


@dataclass(slots=True)
class Runtime:
    """What the spawner has built from the application and every child inherits.

    `config` is the JSON-able description for the master; `start(slot, hooks)` is called first in each child, `stop()`
    last in one that leaves in peace. With `weighs_children` each child reports its memory before it takes work.
    `preload()` runs in the spawner, when the master has been told of the application, and before the first child is
    forked.
    """

    executor: Executor
    config: dict[str, Any]
    start: Callable[[int, Hooks], None]
    stop: Callable[[], None] = lambda: None
    weighs_children: bool = False
    preload: Callable[[], None] = lambda: None


class MasterGone(Exception):
    """End-of-file from the master: nothing that this child could report would be heard."""


def child_main(
    runtime: Runtime, slot: int, work: socket.socket, talk: socket.socket, table_fd: int, stack_fd: int
) -> None:
    """Run one child until EXIT or end-of-file. Never returns an exception of a task."""
    # The application may have set a default time-out for sockets.
    work.setblocking(True)
    talk.setblocking(True)
    spare_forks()
    table = SlotTable(table_fd)
    follow_broker(table.broker_base)
    child = _Child(runtime.executor, slot, work, talk, table, stack_fd)
    try:
        runtime.start(slot, child)
    except Exception:  # user code (worker_process_init) may raise anything: the master stops with its traceback
        talk.sendall(pack_record(Say.BOOT_FAILED, 0, traceback.format_exc().encode()))
        raise SystemExit(1) from None
    try:
        child.run(own_weight_kib() if runtime.weighs_children else None)
        runtime.stop()
    except (MasterGone, BrokenPipeError, ConnectionResetError):
        os._exit(0)


class _Child:
    def __init__(
        self,
        executor: Executor,
        slot: int,
        work: socket.socket,
        talk: socket.socket,
        table: SlotTable,
        stack_fd: int,
    ) -> None:
        self._executor = executor
        self._slot = slot
        self._work = work
        self._talk = talk
        self._table = table
        self._stack_fd = stack_fd
        self._pid = os.getpid()
        self._seq = 0
        self._idle_title = f"child {slot + 1} idle"
        self._title = f"child {slot + 1} "

    def run(self, weight_kib: int | None) -> None:
        """Read, run, report. The loop is the hot path: one receive and one send per message."""
        self._table.end(self._slot)  # the child before may have died in the middle of a run
        set_title(self._idle_title)
        self._talk.sendall(pack_record(Say.READY, 0, b"" if weight_kib is None else b"%d" % weight_kib))
        buffer = bytearray(PACKET_BYTES)
        view = memoryview(buffer)
        receive, send, unpack = self._work.recv_into, self._talk.sendall, PACKET.unpack_from
        waiting = select.poll()
        waiting.register(self._work, select.POLLIN)
        note = meter.note
        while True:
            try:
                length = receive(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                set_title(self._idle_title)
                waiting.poll()  # unlike recv(2) it lets signals in, also where system calls are restarted (signal(7))
                length = receive(buffer)
            if not length:
                raise MasterGone
            started = time.monotonic()
            kind, seq, crashes, queue_length = unpack(buffer)
            if kind == Work.EXIT:
                return
            at = PACKET.size + queue_length
            queue = str(view[PACKET.size : at], "utf-8")
            raw = bytes(view[at:length]) if kind == Work.TASK else self._ask(Say.FETCH, seq)[1]
            outcome = self._one(seq, raw, queue, crashes, started)
            if os.getpid() != self._pid:  # the task forked and its copy came back: it is no child of ours
                os._exit(0)
            ended = time.monotonic()
            outcome.busy_s = ended - started
            note(outcome, ended)
            send(pack_outcome(seq, outcome))

    def send_state(self, task_id: str, meta: bytes) -> None:
        """Have the master store a state (STARTED, `update_state`) while the task goes on."""
        self._talk.sendall(pack_state(self._seq, task_id, meta))

    def send_checkpoint(self, priority: int, raw: bytes) -> None:
        """Have the master keep the envelope that replaces the running message if this child has to be killed."""
        self._talk.sendall(pack_checkpoint(self._seq, priority, raw))

    def order(self) -> int:
        """What the master has ordered the running message to do."""
        return self._table.order(self._slot, self._seq)

    def is_stopping(self) -> bool:
        """Whether the worker has begun to stop."""
        return self._table.is_stopping()

    def _one(self, seq: int, raw: bytes, queue: str, crashes: int, started: float) -> Outcome:
        self._seq = seq
        job = self._executor.prepare(raw, queue, crashes)
        if isinstance(job, Outcome):
            return job
        if not self._may_start(seq, job):
            return Outcome(Action.DROP)
        self._table.begin(self._slot, seq, started, job.text.encode("utf-8", "replace"))
        if job.soft_s or job.hard_s:
            self._talk.sendall(pack_limits(seq, job.soft_s, job.hard_s, job.acks_on_timeout, job.stores))
        keep_offering(self._stack_fd)  # the task before may have changed any signal's handling
        set_title(f"{self._title}{job.text} {since(time.time())}")
        try:
            return job.run()
        finally:
            forget_alarm()
            self._table.end(self._slot)

    def _may_start(self, seq: int, job: Job) -> bool:
        if job.ack_first:
            return self._ask(Say.BEGIN, seq)[0] is Tell.GO
        return self._table.has_lease() or self._ask(Say.ASK, seq)[0] is Tell.GO

    def _ask(self, kind: Say, seq: int) -> tuple[Tell, bytes]:
        """Send a question about message `seq` and wait for the answer."""
        self._talk.sendall(pack_record(kind, seq))
        while True:
            length, answer, about = RECORD.unpack(self._receive(RECORD.size))
            payload = self._receive(length)
            if about == seq:
                return Tell(answer), payload

    def _receive(self, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        got = 0
        while got < length:
            count = self._talk.recv_into(view[got:])
            if not count:
                raise MasterGone
            got += count
        return bytes(data)
