"""The master's record of slots and the children in them: who is asked for, who lives, who is replaced by whom.

Owned by the master's main thread. A slot outlives the children in it; each child has a serial number of its own. A
child that is to leave does so only when another one is ready in its stead, so the pool never works with fewer.
"""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..pool import Channel
from .mailbox import Mailbox
from .outcomes import Death

logger = logging.getLogger("qworker.worker")

#: Children that die one after the other before they were ready: the application cannot run, forking on would be a loop.
MAX_BOOT_DEATHS: Final = 3
#: At most one child in so many is replaced at once.
REPLACED_AT_ONCE: Final = 4


class Spawner(Protocol):
    """What the master asks of a spawner (`pool.SpawnerHandle`, or a fake in tests)."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def fileno(self) -> int:
        """For `select`."""
        ...

    def fork(self, slot: int, *fds: int) -> bool:
        """Ask for a child; False when the spawner has gone."""
        ...

    def signal(self, slot: int, number: int) -> bool:
        """Signal a slot's child, with SIGKILL its whole process group."""
        ...

    def reports(self) -> list[dict[str, Any]] | None:
        """What it has reported since the last call; None once it has gone."""
        ...

    def close(self, timeout_s: float = ...) -> None:
        """End it, by force after `timeout_s`."""
        ...


@dataclass(slots=True)
class Slot:
    """One place in the pool and the child in it (pid 0: asked for, not yet born).

    `is_leaving`: another child is to take its part; `is_told`: the consumer has been told to let it go.
    """

    index: int
    serial: int
    spawner: Spawner
    pid: int = 0
    is_ready: bool = False
    is_leaving: bool = False
    is_told: bool = False


class Crew:
    """All children. `is_hopeless` turns true when children keep dying before they are ready."""

    def __init__(self, size: int, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.size = size
        self._slots: dict[int, Slot] = {}
        self._spent: list[int] = []  # serials of children that wait to be replaced
        self._serial = 0
        self._boot_deaths = 0
        self.boot_trouble = ""

    @property
    def size(self) -> int:
        """How many children there should be, and how many may work at once."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        self._size = size
        self._mailbox.post("size", size=size)

    @property
    def is_hopeless(self) -> bool:
        """Whether to give up instead of forking once more."""
        return self._boot_deaths >= MAX_BOOT_DEATHS

    @property
    def is_ready(self) -> bool:
        """Whether as many children are ready as there should be."""
        return sum(slot.is_ready and not slot.is_leaving for slot in self._slots.values()) >= self.size

    def fill(self, spawner: Spawner) -> None:
        """Let the next spent children go, as far as that is allowed, and ask for those that are missing."""
        # Those whose successor is ready only finish what they run: they hold nobody up.
        while self._spent and len(self._being_replaced()) < max(1, self.size // REPLACED_AT_ONCE):
            self._leave(self._spent.pop(0))
        for _ in range(self.size - len(self._staying())):
            if not self._fork(spawner):
                return

    def _leave(self, serial: int) -> None:
        slot = self._by_serial(serial)
        if slot is not None:
            slot.is_leaving = True

    def _fork(self, spawner: Spawner) -> bool:
        index = next(i for i in range(len(self._slots) + 1) if i not in self._slots)
        channel = Channel(index, self._serial + 1)
        if not spawner.fork(index, *channel.child_ends()):
            channel.close()
            return False
        self._serial += 1
        channel.forget_child_ends()
        self._slots[index] = Slot(index, self._serial, spawner)
        self._mailbox.post("child", channel=channel)
        return True

    def born(self, index: int, pid: int) -> None:
        """The spawner has forked this slot's child."""
        slot = self._slots.get(index)
        if slot is not None:
            slot.pid = pid

    def ready(self, serial: int) -> int:
        """This child takes work; one that waits for that may leave. Returns its pid, 0 if it has died already."""
        slot = self._by_serial(serial)
        if slot is None:
            return 0
        slot.is_ready = True
        self._boot_deaths = 0
        self.boot_trouble = ""
        leaving = next(iter(self._being_replaced()), None)
        if leaving is not None:
            leaving.is_told = True
            self._mailbox.post("retire", serial=leaving.serial)
        return slot.pid

    def replace(self, serial: int) -> bool:
        """This child is spent (too many tasks, too much memory): it leaves once another one is ready.

        False when that is known already.
        """
        slot = self._by_serial(serial)
        if slot is None or slot.is_leaving or serial in self._spent:
            return False
        self._spent.append(serial)
        return True

    def died(self, index: int, pid: int, death: Death) -> None:
        """This slot's child has been reaped; the consumer learns why, to settle what it was running."""
        slot = self._slots.get(index)
        if slot is None or slot.pid != pid:  # it went with its spawner, and another one sits there now
            return
        del self._slots[index]
        if not slot.is_ready and not slot.is_leaving:
            self._boot_deaths += 1
            self.boot_trouble = self.boot_trouble or f"child {index + 1} died of {death.cause()} before it was ready"
        self._mailbox.post("died", serial=slot.serial, death=death)

    def orphaned(self, spawner: Spawner, *, is_first: bool) -> None:
        """A spawner has died and its children with it. Once is an accident; after that a task may have done it."""
        death = Death(None, is_ours=is_first, why="the death of the spawner, which took its children along")
        for slot in [slot for slot in self._slots.values() if slot.spawner is spawner]:
            _kill_group(slot.pid)
            self._mailbox.post("died", serial=slot.serial, death=death)
            del self._slots[slot.index]

    def kill(self) -> None:
        """SIGKILL for every child and whatever its task has started in the same process group."""
        for slot in self._slots.values():
            _kill_group(slot.pid)

    def signal(self, index: int, serial: int, number: int) -> None:
        """Signal this slot's child, if it is still the one that is meant."""
        slot = self._slots.get(index)
        if slot is not None and slot.serial == serial:
            slot.spawner.signal(index, number)

    def renew(self) -> None:
        """A new generation is to take over: everybody leaves, each when one of the new ones is ready."""
        for slot in self._slots.values():
            slot.is_leaving = True
        self._spent.clear()

    def restore(self, spawner: Spawner) -> None:
        """The new generation cannot start: those of `spawner` that have not been told to leave stay."""
        self._boot_deaths = 0
        for slot in self._slots.values():
            slot.is_leaving = slot.is_told or slot.spawner is not spawner

    def has_children_of(self, spawner: Spawner) -> bool:
        """Whether a child of this spawner is left."""
        return any(slot.spawner is spawner for slot in self._slots.values())

    def shed(self, serial: int) -> None:
        """The consumer has let this one go without a successor (the pool shrinks)."""
        slot = self._by_serial(serial)
        if slot is not None:
            slot.is_leaving = slot.is_told = True

    def serials(self) -> set[int]:
        """Every child that lives or was asked for."""
        return {slot.serial for slot in self._slots.values()}

    def pids(self) -> dict[int, int]:
        """Process ids of the children that are ready and stay, by serial number."""
        return {slot.serial: slot.pid for slot in self._staying() if slot.pid and slot.is_ready}

    def _staying(self) -> list[Slot]:
        return [slot for slot in self._slots.values() if not slot.is_leaving]

    def _being_replaced(self) -> list[Slot]:
        return [slot for slot in self._slots.values() if slot.is_leaving and not slot.is_told]

    def _by_serial(self, serial: int) -> Slot | None:
        return next((slot for slot in self._slots.values() if slot.serial == serial), None)


def _kill_group(pid: int) -> None:
    if not pid:  # not born yet
        return
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it was faster
            continue
