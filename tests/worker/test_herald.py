"""What the herald says at which moment: its pace, its patience, and what it does with what nobody takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from qworker.core.companion import Status
from qworker.systemd import Notifier
from qworker.testing import FakeClock
from qworker.worker.herald import EXTEND_EVERY_S, LONGEST_PING_S, Herald, describe

RUNNING = Status(
    node="w@h",
    pid=7,
    phase="running",
    is_loaded=True,
    is_ready=True,
    is_reloading=False,
    reload_trouble="",
    is_stopping=False,
    is_broker_up=True,
    broker_trouble="",
    is_consuming=True,
    uptime_s=1.0,
    deadline_in_s=None,
    size=4,
    children=4,
    busy=0,
    held=0,
)
STARTING = replace(RUNNING, phase="starting", is_ready=False, is_broker_up=False, children=1)
STOPPING = replace(RUNNING, phase="soft", is_stopping=True, busy=2, deadline_in_s=9.0)


class Systemd(Notifier):
    """Takes down what it is told, unless it does not listen."""

    def __init__(self, watchdog_s: float | None) -> None:
        super().__init__("/nowhere", watchdog_s)
        self.heard: list[dict[str, object]] = []
        self.is_listening = True

    def send(self, fields: Mapping[str, object]) -> bool:
        if self.is_listening:
            self.heard.append(dict(fields))
        return self.is_listening


class Worker:
    """A worker with this status; counts how often it was asked to wake its master."""

    def __init__(self, status: Status) -> None:
        self.now = status
        self.roused = 0

    def status(self) -> Status:
        return self.now

    def rouse(self) -> None:
        self.roused += 1


class Stage:
    """A herald between a worker and systemd, turned by its own wishes."""

    def __init__(self, status: Status, watchdog_s: float | None = None) -> None:
        self.clock = FakeClock()
        self.worker = Worker(status)
        self.systemd = Systemd(watchdog_s)
        self.herald = Herald(self.systemd, self.clock)
        self.herald.open(self.worker)  # type: ignore[arg-type]  # as much of a worker as a herald looks at

    def become(self, **changes: object) -> list[dict[str, object]]:
        """Let the worker's status change and the master turn; returns what was said at once."""
        before = len(self.systemd.heard)
        self.worker.now = replace(self.worker.now, **changes)  # type: ignore[arg-type]
        self.herald.turn()
        return self.systemd.heard[before:]

    def pass_time(self, seconds: float) -> list[dict[str, object]]:
        """Turn whenever the herald wants to, for so long; returns what was said."""
        before, end = len(self.systemd.heard), self.clock.monotonic() + seconds
        while self.herald.next_at() <= end:
            self.clock.advance(max(0.0, self.herald.next_at() - self.clock.monotonic()))
            self.herald.turn()
        self.clock.advance(end - self.clock.monotonic())
        return self.systemd.heard[before:]


def test_an_idle_worker_without_a_watchdog_is_never_woken() -> None:
    stage = Stage(RUNNING)
    stage.herald.turn()
    assert stage.herald.next_at() == math.inf
    assert stage.worker.roused > 0


def test_text_is_told_once_a_second_and_the_last_one_always() -> None:
    stage = Stage(RUNNING)
    said = [heard for busy in (1, 2, 3) for heard in stage.become(busy=busy)]
    assert said == []
    assert stage.pass_time(1.5) == [{"STATUS": "running: 3/4 busy, 0 held"}]


@pytest.mark.parametrize(("watchdog_s", "every_s"), [(4, 2.0), (60, LONGEST_PING_S)])
def test_pings_come_at_half_the_time_or_every_ten_seconds(watchdog_s: float, every_s: float) -> None:
    stage = Stage(RUNNING, watchdog_s)
    assert len(stage.pass_time(every_s * 5)) == 5


def test_pings_end_with_the_consumer_and_are_there_again_with_it() -> None:
    stage = Stage(replace(RUNNING, is_consuming=False), watchdog_s=4)
    assert not any("WATCHDOG" in heard for heard in stage.pass_time(60))
    stage.worker.now = RUNNING
    assert any("WATCHDOG" in heard for heard in stage.pass_time(2))


def test_before_there_is_a_consumer_and_in_a_stop_the_masters_turns_are_enough() -> None:
    for status in (replace(STARTING, is_loaded=False, is_consuming=False), replace(STOPPING, is_consuming=False)):
        assert any("WATCHDOG" in heard for heard in Stage(status, watchdog_s=4).systemd.heard)


def test_time_is_asked_for_again_and_again_while_the_broker_is_awaited() -> None:
    stage = Stage(STARTING)
    asked = [heard for heard in stage.pass_time(5 * EXTEND_EVERY_S) if "EXTEND_TIMEOUT_USEC" in heard]
    assert len(asked) == 5


def test_no_time_is_asked_for_while_the_application_is_imported() -> None:
    stage = Stage(replace(STARTING, is_loaded=False))
    assert not any("EXTEND_TIMEOUT_USEC" in heard for heard in [*stage.systemd.heard, *stage.pass_time(60)])


def test_a_deadline_is_told_once_with_what_may_follow_it() -> None:
    stage = Stage(RUNNING)
    [said] = stage.become(is_stopping=True, phase="soft", busy=2, deadline_in_s=9.0)
    assert (said["STOPPING"], said["STATUS"]) == (1, "stopping (soft), 9 s left: 2/4 busy, 0 held")
    assert said["EXTEND_TIMEOUT_USEC"] == 24_000_000
    assert not any("EXTEND_TIMEOUT_USEC" in heard for heard in stage.pass_time(9))


def test_what_nobody_took_is_said_when_somebody_listens_from_what_is_then_true() -> None:
    stage = Stage(STARTING)
    stage.systemd.is_listening = False
    stage.become(phase="running", is_ready=True, is_broker_up=True, children=4)
    assert stage.pass_time(30) == []
    stage.become(busy=1)
    stage.systemd.is_listening = True
    [said] = [heard for heard in stage.pass_time(11) if "READY" in heard]
    assert said["STATUS"] == "running: 1/4 busy, 0 held"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (replace(STARTING, is_loaded=False), "starting: importing the application"),
        (STARTING, "starting: 1/4 children up, waiting for the broker"),
        (
            replace(RUNNING, reload_trouble="OSError: pg://bob:hunter22@db is gone"),
            "running: 0/4 busy, 0 held; the last reload failed, the old code runs: OSError: pg://bob:**@db is gone",
        ),
        (
            replace(STARTING, broker_trouble="it\nis  gone"),
            "starting: 1/4 children up, waiting for the broker; broker unreachable: it is gone",
        ),
        (replace(RUNNING, busy=3, held=12), "running: 3/4 busy, 12 held"),
        (replace(RUNNING, phase="quiet"), "quiet: 0/4 busy, 0 held"),
        (replace(RUNNING, is_reloading=True, reload_trouble="of before"), "reloading: 0/4 busy, 0 held"),
        (replace(STOPPING, phase="warm", deadline_in_s=None), "stopping (warm): 2/4 busy, 0 held"),
    ],
)
def test_status_in_words(status: Status, text: str) -> None:
    assert describe(status) == text
