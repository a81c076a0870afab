"""The master's record of slots and the children in them: who is asked for, who lives, who is replaced.

Owned by the master's main thread. A slot outlives the children in it; each child has a serial number of its own.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..pool import Channel
from .mailbox import Mailbox
from .outcomes import Death

logger = logging.getLogger("qworker.worker")

#: Children that die one after the other before they were ready: the application cannot run, forking on would be a loop.
MAX_BOOT_DEATHS: Final = 3


class Spawner(Protocol):
    """What the master asks of a spawner (`pool.SpawnerHandle`, or a fake in tests)."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def fileno(self) -> int:
        """For `select`."""
        ...

    def fork(self, slot: int, work_fd: int, talk_fd: int) -> bool:
        """Ask for a child; False when the spawner has gone."""
        ...

    def signal(self, slot: int, number: int) -> bool:
        """Signal a slot's child, with SIGKILL its whole process group."""
        ...

    def reports(self) -> list[dict[str, Any]] | None:
        """What it has reported since the last call; None once it has gone."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@dataclass(slots=True)
class Slot:
    """One place in the pool and the child in it (pid 0: asked for, not yet born; serial 0: empty)."""

    index: int
    serial: int = 0
    pid: int = 0
    is_ready: bool = False


class Crew:
    """All slots. `is_hopeless` turns true when children keep dying before they are ready."""

    def __init__(self, size: int, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._slots = [Slot(i) for i in range(size)]
        self._serial = 0
        self._boot_deaths = 0
        self.boot_trouble = ""

    @property
    def is_hopeless(self) -> bool:
        """Whether to give up instead of forking once more."""
        return self._boot_deaths >= MAX_BOOT_DEATHS

    @property
    def is_gone(self) -> bool:
        """Whether no child is left."""
        return not any(slot.serial for slot in self._slots)

    @property
    def is_ready(self) -> bool:
        """Whether every slot has a child that is ready."""
        return all(slot.is_ready for slot in self._slots)

    def fill(self, spawner: Spawner) -> None:
        """Ask for a child for every empty slot."""
        for slot in self._slots:
            if not slot.serial:
                self._fork(slot, spawner)

    def _fork(self, slot: Slot, spawner: Spawner) -> None:
        self._serial += 1
        channel = Channel(slot.index, self._serial)
        if not spawner.fork(slot.index, *channel.child_ends()):
            channel.close()
            return
        channel.forget_child_ends()
        slot.serial, slot.pid, slot.is_ready = self._serial, 0, False
        self._mailbox.post("child", channel=channel)

    def born(self, index: int, pid: int) -> None:
        """The spawner has forked this slot's child."""
        self._slots[index].pid = pid

    def ready(self, index: int) -> None:
        """This slot's child takes work."""
        self._slots[index].is_ready = True
        self._boot_deaths = 0

    def died(self, index: int, death: Death) -> None:
        """This slot's child has been reaped; the consumer learns why, to settle what it was running."""
        slot = self._slots[index]
        if not slot.is_ready:
            self._boot_deaths += 1
            self.boot_trouble = self.boot_trouble or f"child {index + 1} died of {death.cause()} before it was ready"
        self._mailbox.post("died", serial=slot.serial, death=death)
        slot.serial, slot.pid, slot.is_ready = 0, 0, False

    def orphaned(self) -> None:
        """The spawner has died and its children with it; none of them is to blame."""
        self.kill()
        for slot in self._slots:
            if slot.serial:
                self._mailbox.post("died", serial=slot.serial, death=Death(None, is_ours=True))
                slot.serial, slot.pid, slot.is_ready = 0, 0, False

    def kill(self) -> None:
        """SIGKILL for every child and whatever its task has started in the same process group."""
        for slot in self._slots:
            if slot.pid:
                _kill_group(os.killpg, slot.pid)
                _kill_group(os.kill, slot.pid)

    def signal(self, index: int, serial: int, number: int, spawner: Spawner) -> None:
        """Signal this slot's child, if it is still the one that is meant."""
        if self._slots[index].serial == serial:
            spawner.signal(index, number)

    def pids(self) -> list[int]:
        """The children's process ids, in slot order."""
        return [slot.pid for slot in self._slots if slot.pid]


def _kill_group(kill: Callable[[int, int], None], pid: int) -> None:
    try:
        kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it was faster
        return
