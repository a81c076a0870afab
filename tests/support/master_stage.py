"""A master on a stage: its spawner only takes notes, its consumer only listens, and its clock is the test's."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any

from qworker.core.companion import Companion
from qworker.pool import SlotTable
from qworker.testing import FakeClock
from qworker.worker import Phase
from qworker.worker.mailbox import Mailbox
from qworker.worker.master import Master
from qworker.worker.notices import Notice
from qworker.worker.plan import Plan

#: No process has this id: it is above what Linux hands out.
NOBODY = 2**30


class FakeSpawner:
    """Reports what the test puts into `queue`; None in it means that it has died."""

    pid = 4711

    def __init__(self, fd: int | None = None) -> None:
        self.queue: list[dict[str, Any] | None] = []
        self.forked: list[int] = []
        self.reopened = 0
        self.is_closed = False
        self._read, self._write = socket.socketpair()
        if fd is not None:
            os.dup2(self._read.fileno(), fd, inheritable=False)
            self._read.close()
            self._read = socket.socket(fileno=fd)
        self._write.send(b"x")  # always something to read: turns never wait

    def fileno(self) -> int:
        return self._read.fileno()

    def fork(self, slot: int, *fds: int) -> bool:
        assert all(os.fstat(fd) for fd in fds)
        self.forked.append(slot)
        return True

    def reopen_logs(self) -> bool:
        self.reopened += 1
        return True

    def signal(self, slot: int, number: int) -> bool:
        return True

    def kill(self) -> None:
        self.queue.append(None)

    def reports(self) -> list[dict[str, Any]] | None:
        if self.queue and self.queue[0] is None:
            return None
        reports, self.queue = [r for r in self.queue if r is not None], []
        return reports

    def close(self, timeout_s: float = 0.0) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._read.close()
            self._write.close()


class SilentConsumer:
    """A consumer whose thread ends at once: the test reads its letters and speaks for it."""

    beat = 0.0
    is_connecting = False
    broker_trouble = None

    def __init__(self) -> None:
        self.revivals: list[set[int]] = []

    def run(self) -> None: ...

    def revive(self, living: Collection[int]) -> None:
        self.revivals.append(set(living))

    def load(self) -> tuple[int, int]:
        return 0, 0

    def is_consuming(self) -> bool:
        return False


class Stage:
    """A master and what it is surrounded by."""

    def __init__(self, companions: Sequence[Companion] = ()) -> None:
        self.clock = FakeClock()
        self.spawners: list[FakeSpawner] = []
        self.methods: list[str] = []
        self.next_fd: int | None = None
        self.mailbox: Mailbox = None  # type: ignore[assignment]
        self.master = Master(self._start, self._plan, self.clock, companions=companions)
        self.master.start()

    def _start(self, table: SlotTable, method: str) -> FakeSpawner:
        self.methods.append(method)
        self.spawners.append(FakeSpawner(self.next_fd))
        return self.spawners[-1]

    def _plan(
        self, config: dict[str, Any], table: SlotTable, mailbox: Mailbox, notify: Callable[[Notice], None]
    ) -> Plan:
        self.mailbox = mailbox
        self.notify = notify
        self.consumer = SilentConsumer()
        return Plan(self.consumer, 2, soft_s=30.0)  # type: ignore[arg-type]

    def report(self, event: str, **more: Any) -> None:
        self.spawners[-1].queue.append({"event": event, **more})
        self.master.turn()

    def tell(self, kind: str, slot: int = -1, **data: Any) -> None:
        self.notify(Notice(kind, slot, data))
        self.master.turn()

    def signal(self, number: signal.Signals) -> None:
        self.master.notice(number)
        self.master.turn()

    def letters(self) -> list[str]:
        """What the consumer was told since the last call, sizes aside. Channels would be its to close."""
        letters = [letter for letter in self.mailbox.take() if letter.kind != "size"]
        for letter in letters:
            if "channel" in letter.data:
                letter.data["channel"].close()
        return [letter.kind for letter in letters]

    def close(self) -> None:
        if self.mailbox is not None:
            self.letters()
        for spawner in self.spawners:
            spawner.close()
        self.master.close()

    def run(self) -> None:
        """Up to RUNNING, with two children."""
        self.report("loaded", config={})
        for slot in (0, 1):
            self.report("forked", slot=slot, pid=NOBODY)
            self.tell("ready", slot, serial=slot + 1)
        self.tell("connected")
        assert self.master.phase is Phase.RUNNING
