"""The lifecycle table: what each signal at each moment does to exit code, tasks and queue; nothing lost or doubled.

In every case one task runs (`careful`, which notes its start and its `finally`) or none does, and two more wait in the
worker's window.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from support import Shop, Worker, wait_until

TERM, INT, QUIT, KILL, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGHUP


@dataclass(frozen=True)
class Case:
    """What is done to a worker, and what must be true afterwards.

    `does` happens while the task runs; then, if `finishes`, the task is allowed to end. `back` is how many messages are
    in the queue again.
    """

    does: Callable[[Worker], None]
    finishes: bool
    code: int
    back: int
    soft: str = ""


def send(*numbers: signal.Signals) -> Callable[[Worker], None]:
    def do(worker: Worker) -> None:
        for number in numbers:
            worker.signal(number)

    return do


def send_when(*steps: tuple[signal.Signals, str]) -> Callable[[Worker], None]:
    """Send each signal and wait for the line that shows that it was understood."""

    def do(worker: Worker) -> None:
        for number, line in steps:
            worker.signal(number)
            worker.wait_log(line)

    return do


def up_to_hard(worker: Worker) -> None:
    send_when((QUIT, SOFT), (QUIT, COLD))(worker)
    worker.signal(QUIT)  # it may have ended by now: its only task is quick to be cut


def to_the_group(worker: Worker) -> None:
    worker.tree()
    os.killpg(worker.pid, TERM)


WARM, SOFT, COLD, HARD = "warm shutdown", "soft shutdown", "cold shutdown", "hard shutdown"
BUSY = {
    "TERM": Case(send(TERM), finishes=True, code=0, back=2),
    "INT": Case(send(INT), finishes=True, code=0, back=2),
    "five times TERM": Case(send(TERM, TERM, TERM, TERM, TERM), finishes=True, code=0, back=2),
    "TERM to the process group": Case(to_the_group, finishes=True, code=0, back=2),
    "QUIT without a soft time-out": Case(send(QUIT), finishes=False, code=1, back=3),
    "QUIT, ends in time": Case(send(QUIT), finishes=True, code=0, back=2, soft="60"),
    "QUIT, past its deadline": Case(send(QUIT), finishes=False, code=1, back=3, soft="0.3"),
    "TERM, then QUIT": Case(send_when((TERM, WARM), (QUIT, SOFT)), finishes=False, code=1, back=3, soft="0.3"),
    "QUIT twice": Case(send_when((QUIT, SOFT), (QUIT, COLD)), finishes=False, code=1, back=3, soft="60"),
    "INT three times": Case(
        send_when((INT, WARM), (INT, SOFT), (INT, COLD)), finishes=False, code=1, back=3, soft="60"
    ),
    "QUIT three times": Case(up_to_hard, finishes=False, code=1, back=3, soft="60"),
    "TERM during a reload": Case(send(HUP, TERM), finishes=True, code=0, back=2),
    "QUIT during a reload": Case(send(HUP, QUIT), finishes=False, code=1, back=3),
    "QUIT right behind TERM": Case(send(TERM, QUIT), finishes=False, code=1, back=3),
}


@pytest.mark.parametrize("name", BUSY)
def test_with_work_in_flight(any_shop: Shop, name: str) -> None:
    case = BUSY[name]
    worker = any_shop.worker("-c", "1", "-Q", "hipri", *(["--soft-shutdown-timeout", case.soft] if case.soft else []))
    running = any_shop.task("careful").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    waiting = [any_shop.task("noted").delay(f"n{i}") for i in range(2)]
    wait_until(lambda: any_shop.in_flight() == 3, "the others wait in the worker")
    case.does(worker)
    if case.finishes:
        wait_until(lambda: any_shop.depth() == 2, "what was not started is back")
        (any_shop.folder / "go").touch()
    assert worker.wait(15) == case.code
    assert (any_shop.depth(), any_shop.in_flight()) == (case.back, 0)
    assert any_shop.ran().count("start go") == 1

    (any_shop.folder / "go").touch()
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert running.get(timeout=15) == "go"
    [result.get(timeout=15) for result in waiting]
    runs = any_shop.ran()
    assert runs.count("start go") == (1 if case.finishes else 2)
    assert [line for line in runs if line.startswith("n")] == ["n0", "n1"]
    assert any_shop.dead() == []


@pytest.mark.parametrize("number", [TERM, INT, QUIT])
def test_without_work(any_shop: Shop, number: signal.Signals) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    worker.signal(number)
    assert worker.wait(10) == 0


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_killed_child(any_shop: Shop, is_busy: bool) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    if is_busy:
        result = any_shop.task("careful").delay("go")
        wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
        (any_shop.folder / "go").touch()
    worker.children()[0].kill()
    if is_busy:
        assert result.get(timeout=10) == "go"
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    assert worker.stop() == 0


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_killed_master(any_shop: Shop, is_busy: bool) -> None:
    lease = {"TEST_LEASE": "2"}
    worker = any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    if is_busy:
        any_shop.task("careful").delay("go")
        wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    worker.process.send_signal(KILL)
    worker.wait(5)
    wait_until(lambda: not worker.survivors(), "spawner and children end with it")
    (any_shop.folder / "go").touch()
    any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    if is_busy:
        wait_until(lambda: any_shop.ran().count("finally go") == 1, "another worker runs it")
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
