"""Tells systemd how the worker is: a companion in the master's main thread, made by the command line.

What it says, each in a datagram at the end of a turn of the master, together with what else is due:
1. READY=1 when the application is loaded, the children are up and the broker has answered; MAINPID with it;
2. RELOADING=1 when a new generation is under way, READY=1 when it works or has been given up;
3. STOPPING=1 when the worker begins to stop;
4. STATUS, for people: only when it has changed, with one of the others or at most once a second;
5. EXTEND_TIMEOUT_USEC while it waits for a broker at its start, and while it drains;
6. WATCHDOG=1 while the consumer turns and is not deaf.

A datagram that does not arrive is made anew later, from what is then true.
"""

from __future__ import annotations

import faulthandler
import math
import time
from dataclasses import dataclass, replace
from typing import Final

from ..core.clock import Clock, SystemClock
from ..core.companion import Status, Watched
from ..core.secrets import scrub
from ..systemd import Notifier
from .phases import Phase

#: STATUS is sent no more often.
TEXT_EVERY_S: Final = 1.0
#: Half the watchdog's time is the rule (sd_watchdog_enabled(3)); more often, so that a long one starts to count at
#: once when something hangs.
LONGEST_PING_S: Final = 10.0
#: So much time is asked for, and so often, while there is no saying how long it takes.
EXTEND_S: Final = 30.0
EXTEND_EVERY_S: Final = 10.0
#: What may follow the deadline of a stop's phase: a cold and a hard stop, connections and spawners that close slowly.
_TAIL_S: Final = 15.0
#: Somebody who does not listen is tried again after so long, at first and at most.
_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 10.0
_WIDEST_TROUBLE: Final = 200


@dataclass(frozen=True, slots=True)
class _Told:
    """What systemd knows. Moments are on the monotonic clock."""

    is_ready: bool = False
    is_reloading: bool = False
    is_stopping: bool = False
    text: str = ""
    text_at: float = -math.inf
    extended_at: float = -math.inf
    extended_for: str = ""  # the phase
    pinged_at: float = -math.inf


class Herald:
    """See the module. Owned by the master's main thread."""

    def __init__(self, notifier: Notifier, clock: Clock | None = None) -> None:
        self._notifier = notifier
        self._clock = clock or SystemClock()
        self._ping_every_s = min((notifier.watchdog_s or math.inf) / 2, LONGEST_PING_S)
        self._worker: Watched | None = None
        self._told = _Told()
        self._next_at = math.inf
        self._retry_s = _RETRY_S
        self._failed_at = -math.inf

    def open(self, worker: Watched) -> None:
        """Begin to speak. Never raises."""
        self._worker = worker
        if self._notifier.watchdog_s is not None:
            # The watchdog ends a silent process with SIGABRT: its stacks say where it hung.
            faulthandler.enable(file=2, all_threads=True)
        self.turn()

    def descriptors(self) -> tuple[int, ...]:
        """Nothing is ever heard from systemd here."""
        return ()

    def next_at(self) -> float:
        """When something has to be said, or may have changed unnoticed."""
        return self._next_at

    def turn(self) -> None:
        """Say what is new. Never raises, never waits."""
        now = self._clock.monotonic()
        if self._worker is None or now < self._failed_at + self._retry_s:
            return
        status = self._worker.status()
        if _is_idle(status):  # nobody else would wake the master when that changes
            self._worker.rouse()
            status = self._worker.status()
        self._tell(status, now)

    def close(self) -> None:
        """Say that the worker has ended, and let go."""
        if self._worker is not None:
            self._notifier.send({"STATUS": "stopped"})
        self._notifier.close()

    def _tell(self, status: Status, now: float) -> None:
        told, fields = self._news(status, now)
        if fields and not self._notifier.send(fields):
            self._failed_at = now
            self._retry_s = min(_LONGEST_RETRY_S, self._retry_s * 2)
            self._next_at = now + self._retry_s
            return
        self._told, self._retry_s = told, _RETRY_S
        self._next_at = self._due_at(status, now)

    def _news(self, status: Status, now: float) -> tuple[_Told, dict[str, object]]:
        """What systemd will know, and what it has to be told for that."""
        told, fields = self._state(status)
        extension_s = self._extension_s(status, now)
        if extension_s:
            fields["EXTEND_TIMEOUT_USEC"] = round(extension_s * 1e6)
            told = replace(told, extended_at=now, extended_for=status.phase)
        text = describe(status)
        if text != told.text and (fields or now >= told.text_at + TEXT_EVERY_S):
            fields["STATUS"] = text
            told = replace(told, text=text, text_at=now)
        if now >= told.pinged_at + self._ping_every_s and self._is_well(status):
            fields["WATCHDOG"] = 1
            told = replace(told, pinged_at=now)
        return told, fields

    def _state(self, status: Status) -> tuple[_Told, dict[str, object]]:
        told = self._told
        if status.is_stopping:
            new: dict[str, object] = {} if told.is_stopping else {"STOPPING": 1}
            return replace(told, is_stopping=True), new
        if not status.is_ready:
            return told, {}
        if not told.is_ready:
            return replace(told, is_ready=True), {"READY": 1, "MAINPID": status.pid}
        if status.is_reloading and not told.is_reloading:
            return replace(told, is_reloading=True), {"RELOADING": 1, "MONOTONIC_USEC": time.monotonic_ns() // 1000}
        if told.is_reloading and not status.is_reloading:
            return replace(told, is_reloading=False), {"READY": 1}
        return told, {}

    def _extension_s(self, status: Status, now: float) -> float:
        """How long systemd is asked to wait for the next sign of life; 0 = as long as it would anyway."""
        is_new = self._told.extended_for != status.phase
        if status.is_stopping and status.deadline_in_s is not None:
            return status.deadline_in_s + _TAIL_S if is_new else 0.0
        if _is_waiting_long(status) and (is_new or now >= self._told.extended_at + EXTEND_EVERY_S):
            return EXTEND_S
        return 0.0

    def _is_well(self, status: Status) -> bool:
        """Whether the watchdog may know that all is well.

        Before there is a consumer, and during a stop, whose phases have deadlines, the master's turning says it.
        """
        has_watchdog = self._notifier.watchdog_s is not None
        return has_watchdog and (status.is_consuming or status.is_stopping or not status.is_loaded)

    def _due_at(self, status: Status, now: float) -> float:
        told = self._told
        at = math.inf
        if self._notifier.watchdog_s is not None:
            at = told.pinged_at + self._ping_every_s
            if at <= now:  # withheld: it may be well again
                at = now + min(TEXT_EVERY_S, self._ping_every_s)
        if _is_waiting_long(status):
            at = min(at, told.extended_at + EXTEND_EVERY_S)
        if not _is_idle(status) or describe(status) != told.text:
            at = min(at, max(now, told.text_at) + TEXT_EVERY_S)
        return at


def describe(status: Status) -> str:
    """The worker in one line for `systemctl status`."""
    if status.phase == Phase.STARTING.value:
        parts = ["starting: " + _start(status)]
    else:
        left = f", {status.deadline_in_s:.0f} s left" if status.is_stopping and status.deadline_in_s else ""
        parts = [f"{_phase(status)}{left}: {status.busy}/{status.size} busy, {status.held} held"]
    if status.is_loaded and not status.is_broker_up and (status.broker_trouble or status.is_ready):
        parts.append(f"broker unreachable: {_short(status.broker_trouble)}")
    elif status.is_ready and not status.is_stopping and not status.is_consuming:
        parts.append("the consumer does not turn, or hears nothing of messages that wait")
    if status.reload_trouble and not status.is_reloading and not status.is_stopping:
        parts.append(f"the last reload failed, the old code runs: {_short(status.reload_trouble)}")
    return "; ".join(parts)


def _start(status: Status) -> str:
    if not status.is_loaded:
        return "importing the application"
    broker = "the broker answers" if status.is_broker_up else "waiting for the broker"
    return f"{status.children}/{status.size} children up, {broker}"


def _phase(status: Status) -> str:
    if status.is_stopping:
        return f"stopping ({status.phase})"
    return "reloading" if status.is_reloading else status.phase


def _is_idle(status: Status) -> bool:
    """Whether nothing can change without the master being woken."""
    is_steady = status.is_ready and status.is_broker_up and not status.is_stopping
    return is_steady and status.is_consuming and not status.busy and not status.held


def _is_waiting_long(status: Status) -> bool:
    """Whether it waits, rightly, for something that may take any time: the broker, or tasks in a warm shutdown."""
    if status.is_stopping:
        return status.deadline_in_s is None and status.busy > 0
    return status.is_loaded and not status.is_ready and not status.is_broker_up


def _short(text: str) -> str:
    """A trouble in one line; everybody on the host may read it, so without secrets."""
    line = scrub(" ".join(text.split()))
    return line if len(line) <= _WIDEST_TROUBLE else line[: _WIDEST_TROUBLE - 1] + "…"
