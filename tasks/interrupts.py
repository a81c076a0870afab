"""How a running task is told to stop: the master orders it in shared memory and signals, this raises it in user code.

One object per child (`interrupts`). An order is about one message; it is raised only while that message's own code
runs, at most once for each kind, never inside `shield()`, and never in our own frames: what the master orders too
early or too late is ordered again, so nothing is lost by leaving it. Neither is it raised where it would get lost: in a
log handler, which swallows what is raised in it, or in a finaliser.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import CodeType, FrameType
from typing import Final, Protocol

from ..core import logs
from ..core.errors import SoftTimeLimitExceeded, WorkerShutdown


class Order(IntEnum):
    """What a running task may be told."""

    NONE = 0
    SHUTDOWN = 1  # WorkerShutdown: the worker stops cold
    SOFT_LIMIT = 2  # SoftTimeLimitExceeded


class Hooks(Protocol):
    """What a child offers to the code that runs tasks (`pool/child.py`)."""

    def send_state(self, task_id: str, meta: bytes) -> None:
        """Have the master store a state that is not final."""
        ...

    def send_checkpoint(self, priority: int, raw: bytes) -> None:
        """Have the master keep the envelope that replaces the running message if its run is cut."""
        ...

    def order(self) -> int:
        """The order for the message that runs now; 0 when there is none."""
        ...

    def is_stopping(self) -> bool:
        """Whether the worker has begun to stop."""
        ...


#: The signal by which the master says that there is an order; without one it means that the log is to be reopened.
SIGNAL: Final = signal.SIGUSR2
#: Calls `emit` of every handler but our own, which lets a soft time limit pass.
_LOG_HANDLER: Final = logging.Handler.handle.__code__


class Interrupts:
    """The state of one child. Main thread only, as Python's signal handlers are."""

    def __init__(self) -> None:
        self._hooks: Hooks | None = None
        self._own: set[CodeType] = set()
        self._is_open = False
        self._shields = 0
        self._pending = Order.NONE
        self._given: set[Order] = set()

    def install(self, hooks: Hooks, *own: CodeType) -> None:
        """Listen to the master. `own` are the functions of ours that stand between user code and the child's loop."""
        self._hooks = hooks
        self._own = {*own, self.open.__func__.__code__, self.close.__func__.__code__}  # type: ignore[attr-defined]
        self._listen()

    def _listen(self) -> None:
        signal.signal(SIGNAL, self._on_signal)
        signal.siginterrupt(SIGNAL, False)

    def open(self) -> None:
        """User code begins."""
        if self._hooks is not None and signal.getsignal(SIGNAL) != self._on_signal:
            self._listen()  # the task before has changed it
        self._given.clear()
        self._pending = Order.NONE
        self._shields = 0
        self._is_open = True

    def close(self) -> None:
        """User code has ended."""
        self._is_open = False

    def has_cut(self) -> bool:
        """Whether WorkerShutdown has been raised in the run that is going on, or has just ended."""
        return Order.SHUTDOWN in self._given

    def cut(self, why: str) -> None:
        """End the run that is going on, as a stop of the worker does: raises WorkerShutdown."""
        self._given.add(Order.SHUTDOWN)
        raise WorkerShutdown(why)

    def is_stopping(self) -> bool:
        """Whether this worker has begun to stop; False outside of a worker."""
        return self._hooks is not None and self._hooks.is_stopping()

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Postpone what is ordered while the block runs; it is raised at the end of the block."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if not self._shields and self._pending:
            self._raise(self._pending)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        order = Order(self._hooks.order()) if self._hooks is not None else Order.NONE
        if not order:
            logs.reopen()
        if not order or not self._is_open or frame is None or frame.f_code in self._own:
            return
        if self._shields:
            self._pending = order
        elif not _is_swallowed_in(frame):
            self._raise(order)

    def _raise(self, order: Order) -> None:
        self._pending = Order.NONE
        if order in self._given:
            return
        self._given.add(order)
        raise WorkerShutdown("the worker stops") if order is Order.SHUTDOWN else SoftTimeLimitExceeded()


def _is_swallowed_in(frame: FrameType | None) -> bool:
    """Whether an exception that is raised here would not reach the task: handlers and finalisers only report it."""
    while frame is not None:
        if frame.f_code is _LOG_HANDLER or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


interrupts: Final = Interrupts()
