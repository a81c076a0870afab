"""The master's record of slots and the children in them: who is asked for, who lives, who is replaced by whom.

Owned by the master's main thread. A slot outlives the children in it; each child has a serial number of its own. A
child that is to leave does so only when another one is ready in its stead, so the pool never works with fewer.

Whatever happens only changes what is noted here; `fill`, called on every turn, compares that with what should be, and
acts. So no order of events can leave the pool too large or too small.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from ..core.clock import Clock
from ..core.process import is_zombie, kill_group
from ..pool import TABLE_SLOTS, SlotTable
from ..tasks import Order
from .death import NOT_BORN, Death
from .mailbox import Mailbox
from .shortage import Shortage, channel_if_there_is_room
from .spawning import Spawner

#: Children that die one after the other before they were ready: the application cannot run, forking on would be a loop.
MAX_BOOT_DEATHS: Final = 3
#: Why a child is replaced that has been given as many messages as it may run.
MAX_TASKS: Final = "max_tasks"
#: At most one child in so many is replaced at once.
REPLACED_AT_ONCE: Final = 4


@dataclass(slots=True)
class Slot:
    """One place in the pool and the child in it (pid 0: asked for, not yet born).

    `is_spent`: it has done, or taken, as much as it may; `is_leaving`: another child is to take its part; `is_told`:
    the consumer has been told to let it go. `why`: for what another one replaces it (max_tasks, max_memory, reload).
    """

    index: int
    serial: int
    spawner: Spawner
    pid: int = 0
    is_ready: bool = False
    is_spent: bool = False
    is_leaving: bool = False
    is_told: bool = False
    why: str = ""


class Crew:
    """All children. `is_hopeless` turns true when those of the present spawner keep dying before they are ready."""

    def __init__(self, size: int, mailbox: Mailbox, clock: Clock) -> None:
        self._mailbox = mailbox
        self._shortage = Shortage(clock)
        self.size = size
        self._slots: dict[int, Slot] = {}
        self._serial = 0
        self._source: Spawner | None = None  # whose children the pool is filled with
        self._boot_deaths = 0
        self._is_shedding = False  # the consumer has been asked which child to let go
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
        return self._count_ready() >= self.size

    def fill(self, spawner: Spawner) -> None:
        """Bring the pool to its size: begin to replace spent children, ask for missing ones, let others go."""
        self._draw_from(spawner)
        self._replace_spent()
        may_ask = self._shortage.may_ask()
        for _ in range(self.size - len(self._staying()) if may_ask else 0):
            if not self._fork(spawner):
                break
        self._shed_surplus()
        self._let_replaced_go()

    def next_at(self) -> float:
        """When `fill` has something to do although nothing has come."""
        return self._shortage.next_at()

    def _draw_from(self, spawner: Spawner) -> None:
        if spawner is not self._source:
            self._source = spawner
            self._boot_deaths = 0
            self.boot_trouble = ""

    def _replace_spent(self) -> None:
        # Those whose successor is ready only finish what they run: they hold nobody up.
        free = max(1, self.size // REPLACED_AT_ONCE) - len(self._being_replaced())
        for slot in [slot for slot in self._staying() if slot.is_spent][: max(0, free)]:
            slot.is_leaving = True

    def _fork(self, spawner: Spawner) -> bool:
        index = next(i for i in range(len(self._slots) + 1) if i not in self._slots)
        if index >= TABLE_SLOTS:  # many old generations are at work: wait for places
            return False
        try:
            channel = channel_if_there_is_room(index, self._serial + 1)
        except OSError as error:
            self._do_without(error.strerror)
            return False
        if not spawner.fork(index, *channel.child_ends()):
            channel.close()
            return False
        self._serial += 1
        channel.forget_child_ends()
        self._slots[index] = Slot(index, self._serial, spawner)
        self._mailbox.post("child", channel=channel)
        return True

    def _shed_surplus(self) -> None:
        """Ask the consumer to let the idlest go, one at a time: it alone knows who is idle."""
        staying = self._staying()
        if len(staying) > self.size and not self._is_shedding:
            self._is_shedding = True
            self._mailbox.post("shed", serials=[slot.serial for slot in staying])

    def _let_replaced_go(self) -> None:
        """Those that are being replaced leave as soon as enough children are ready without them.

        One that has not finished booting is of no use any more. Among the others, the spent ones go first, and those of
        the last generation that is known to work stay longest.
        """
        leaving = sorted(self._being_replaced(), key=lambda slot: (slot.is_ready, not slot.is_spent, -slot.serial))
        unready = sum(not slot.is_ready for slot in leaving)
        surplus = self._count_ready() + len(leaving) - unready - self.size
        for slot in leaving[: unready + max(0, surplus)]:
            self._retire(slot)

    def _retire(self, slot: Slot) -> None:
        slot.is_leaving = slot.is_told = True
        self._mailbox.post("retire", serial=slot.serial)

    def born(self, index: int, pid: int) -> None:
        """The spawner has forked this slot's child."""
        slot = self._slots.get(index)
        if slot is not None:
            slot.pid = pid
            self._shortage.is_over()

    def not_born(self, index: int, why: str) -> None:
        """The spawner could not fork this slot's child: the system allows no more. It is asked again a moment later."""
        slot = self._slots.get(index)
        if slot is None or slot.pid:
            return
        del self._slots[index]
        self._mailbox.post("died", serial=slot.serial, death=Death(None, is_ours=True), why=NOT_BORN)
        self._do_without(why)

    def _do_without(self, why: str | None) -> None:
        """No child more for a moment: those that have run as many messages as they may run as many again.

        They would wait with nothing to do until they can be replaced, and with them what this worker holds.
        """
        self._shortage.begins(why)
        for slot in self._slots.values():
            if slot.is_spent and slot.why == MAX_TASKS and not slot.is_told:
                slot.is_spent = slot.is_leaving = False
                slot.why = ""
                self._mailbox.post("reprieve", serial=slot.serial)

    def ready(self, serial: int) -> None:
        """This child takes work."""
        slot = self._by_serial(serial)
        if slot is None:  # it has died already
            return
        slot.is_ready = True
        if slot.spawner is self._source:
            self._boot_deaths = 0
            self.boot_trouble = ""

    def boot_failed(self, serial: int, trouble: str) -> None:
        """This child has said why it cannot start; its death follows, or has just been reported."""
        slot = self._by_serial(serial)
        if slot is None or slot.spawner is self._source:
            self.boot_trouble = trouble

    def replace(self, serial: int, why: str) -> bool:
        """This child is spent (`max_tasks`, `max_memory`): it leaves once another one is ready.

        False when that is known already.
        """
        slot = self._by_serial(serial)
        if slot is None or slot.is_leaving or slot.is_spent:
            return False
        slot.is_spent = True
        slot.why = why
        return True

    def died(self, index: int, pid: int, death: Death) -> None:
        """This slot's child has been reaped; the consumer learns why, to settle what it was running."""
        slot = self._slots.get(index)
        if slot is None or slot.pid != pid:  # it went with its spawner, and another one sits there now
            return
        del self._slots[index]
        if slot.spawner is self._source and not slot.is_ready and not slot.is_leaving:
            self._boot_deaths += 1
            self.boot_trouble = self.boot_trouble or f"child {index + 1} died of {death.cause()} before it was ready"
        self._mailbox.post("died", serial=slot.serial, death=death, why=slot.why)

    def orphaned(self, spawner: Spawner, *, is_first: bool) -> None:
        """A spawner has died and its children with it. Once is an accident; after that a task may have done it."""
        death = Death(None, is_ours=is_first, why="the death of the spawner, which took its children along")
        for slot in [slot for slot in self._slots.values() if slot.spawner is spawner]:
            kill_group(slot.pid)
            self._mailbox.post("died", serial=slot.serial, death=death, why="spawner_lost")
            del self._slots[slot.index]

    def tell_again(self) -> None:
        """The consumer has been started anew: what it was told last may have been lost."""
        self.size = self._size
        self._is_shedding = False
        for slot in self._slots.values():
            if slot.is_told:
                self._retire(slot)

    def dump_stacks(self) -> None:
        """Have the consumer ask every child for its stacks: it alone knows what each of them runs."""
        self._mailbox.post("stacks")

    def kill(self) -> None:
        """SIGKILL for every child and whatever its task has started in the same process group."""
        for slot in self._slots.values():
            kill_group(slot.pid)

    def cut(self, table: SlotTable) -> None:
        """Have WorkerShutdown raised in what runs now.

        The consumer sees to it as well, and until it has succeeded; but it may be waiting for a broker that does not
        answer, while the time of the cold stop runs.
        """
        for slot in self._slots.values():
            running = table.read(slot.index)
            if running is not None:
                table.give_order(slot.index, running.seq, Order.SHUTDOWN)
                slot.spawner.signal(slot.index, signal.SIGUSR2)

    def end(self) -> None:
        """The hard stop: kill everybody, and take them for dead at once. The spawner may be stuck and never tell."""
        self.kill()
        for slot in self._slots.values():
            self._mailbox.post("died", serial=slot.serial, death=Death(None, is_ours=True))
        self._slots.clear()

    def signal(self, index: int, serial: int, number: int) -> None:
        """Signal this slot's child, if it is still the one that is meant."""
        slot = self._slots.get(index)
        if slot is not None and slot.serial == serial:
            slot.spawner.signal(index, number)

    def renew(self) -> None:
        """A new generation is to take over: everybody leaves, each when one of the new ones is ready."""
        for slot in self._slots.values():
            slot.is_leaving = True
            slot.why = slot.why or "reload"

    def roll_back(self, spawner: Spawner) -> None:
        """Only children of `spawner` are to stay, as far as they have not been told to leave; all others go now."""
        self._draw_from(spawner)
        for slot in self._slots.values():
            if slot.spawner is spawner:
                slot.is_leaving = slot.is_told
            elif not slot.is_told:
                slot.why = slot.why or "reload"
                self._retire(slot)

    def forget_lost(self, serial: int) -> None:
        """The worker stops: one that its spawner has not forked yet (it leaves once it looks around), or does not reap.

        It counts as dead.
        """
        slot = self._by_serial(serial)
        if slot is not None and (not slot.pid or is_zombie(slot.pid)):
            del self._slots[slot.index]
            self._mailbox.post("died", serial=serial, death=Death(None, is_ours=True))

    def is_owed_by(self, spawner: Spawner) -> bool:
        """Whether this spawner has been asked for a child that it has not forked yet."""
        return any(slot.spawner is spawner and not slot.pid for slot in self._slots.values())

    def has_children_of(self, spawner: Spawner) -> bool:
        """Whether a child of this spawner is left."""
        return any(slot.spawner is spawner for slot in self._slots.values())

    def shed(self, serial: int) -> None:
        """The consumer has let this one go without a successor (the pool shrinks)."""
        self._is_shedding = False
        slot = self._by_serial(serial)
        if slot is not None:
            slot.is_leaving = slot.is_told = True

    def serials(self) -> set[int]:
        """Every child that lives or was asked for."""
        return {slot.serial for slot in self._slots.values()}

    def slots(self) -> list[Slot]:
        """Every child that lives or was asked for, by slot. Any thread; a snapshot, but its parts go on changing."""
        return sorted(self._slots.copy().values(), key=lambda slot: slot.index)

    def pids(self) -> dict[int, int]:
        """Process ids of the children that are ready and stay, by serial number."""
        return {slot.serial: slot.pid for slot in self._staying() if slot.pid and slot.is_ready}

    def processes(self) -> list[int]:
        """Process ids of all children that have been born."""
        return [slot.pid for slot in self._slots.values() if slot.pid]

    def are_known_that_run(self, table: SlotTable) -> bool:
        """Whether no child runs anything whose birth has not been reported yet."""
        return not any(table.read(slot.index) for slot in self._slots.values() if not slot.pid)

    def index_of(self, serial: int) -> int:
        """Which slot this living child sits in."""
        return next(slot.index for slot in self._slots.values() if slot.serial == serial)

    def _staying(self) -> list[Slot]:
        return [slot for slot in self._slots.values() if not slot.is_leaving]

    def _count_ready(self) -> int:
        return sum(slot.is_ready for slot in self._staying())

    def _being_replaced(self) -> list[Slot]:
        return [slot for slot in self._slots.values() if slot.is_leaving and not slot.is_told]

    def _by_serial(self, serial: int) -> Slot | None:
        return next((slot for slot in self._slots.values() if slot.serial == serial), None)
