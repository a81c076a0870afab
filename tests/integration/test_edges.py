"""What tasks do to their process: each has a defined outcome, and the worker goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from support import Shop, wait_until

FAILURES = {"sys.exit": "SystemExit", "KeyboardInterrupt": "KeyboardInterrupt", "BaseException": "BaseException"}
HARMLESS = ["thread", "subprocess", "fork", "spawn", "forkserver", "terminated fork", "fork of a thread"]
HARMLESS += ["signal handlers", "blocked signals", "chdir", "close 0-2", "print"]


@pytest.mark.parametrize("kind", FAILURES)
def test_leaving_in_unusual_ways_is_a_failure_and_the_child_survives(shop: Shop, kind: str) -> None:
    shop.worker("-c", "1", "-Q", "hipri")
    before = shop.task("pid").delay().get(timeout=10)
    result = shop.task("edge").delay(kind)
    wait_until(lambda: result.status == "FAILURE", "the failure is stored")
    assert FAILURES[kind] in result.traceback
    assert shop.task("pid").delay().get(timeout=10) == before
    assert shop.dead() == []


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_a_task_does_to_its_process_harms_neither_it_nor_the_next_one(shop: Shop, kind: str) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri")
    assert shop.task("edge").delay(kind).get(timeout=20) == kind
    assert shop.task("add").delay(1).get(timeout=10) == 1
    assert worker.stop() == 0


@pytest.mark.parametrize("kind", ["signal handlers", "blocked signals"])
def test_a_task_after_one_that_changed_signal_handling_can_still_be_cut(
    shop: Shop, patient: dict[str, str], kind: str
) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", env=patient)
    assert shop.task("edge").delay(kind).get(timeout=20) == kind
    shop.task("careful").delay("go")
    wait_until(lambda: shop.ran() == ["start go"], "the task runs")
    worker.signal(signal.SIGQUIT)
    assert worker.wait(10) == 1
    assert shop.ran() == ["start go", "finally go"]


def test_a_task_after_one_that_changed_signal_handlers_survives_a_look_at_its_stack(shop: Shop) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri")
    assert shop.task("edge").delay("signal handlers").get(timeout=20) == "signal handlers"
    result = shop.task("gate").delay("go")
    wait_until(lambda: shop.ran() == ["start go"], "the task runs")
    worker.signal(signal.SIGUSR1)
    worker.wait_log("in wait_for")
    (shop.folder / "go").touch()
    assert result.get(timeout=10) == "go"
    assert shop.ran() == ["start go", "end go"]


def test_an_alarm_that_a_task_has_left_does_not_end_the_next_one(shop: Shop) -> None:
    shop.worker("-c", "1", "-Q", "hipri")
    assert shop.task("edge").delay("alarm").get(timeout=20) == "alarm"
    result = shop.task("gate").delay("go")
    wait_until(lambda: shop.ran() == ["start go"], "the task runs")
    time.sleep(1.2)  # the alarm's time: it is its silence that is looked at
    (shop.folder / "go").touch()
    assert result.get(timeout=10) == "go"
    assert shop.ran() == ["start go", "end go"]


def test_as_process_1_it_reaps_orphans_and_answers_term(sqlite_shop: Shop) -> None:
    unshare = shutil.which("unshare")
    allowed = unshare and subprocess.run([unshare, "--pid", "--fork", "true"], capture_output=True).returncode == 0
    if not allowed:
        pytest.skip("needs unshare")
    log = (sqlite_shop.folder / "init.log").open("wb")
    command = [str(unshare), "--pid", "--fork", "--kill-child", sys.executable, "-m", "qworker", "-A", "shop"]
    outer = subprocess.Popen([*command, "-c", "1", "-Q", "hipri"], cwd=sqlite_shop.folder, stdout=log, stderr=log)
    try:
        [sqlite_shop.task("orphan").delay().get(timeout=20) for _ in range(3)]
        (master,) = psutil.Process(outer.pid).children()
        # Each would stay a zombie of this name if nobody reaped it.
        wait_until(lambda: "sleep" not in _below(master), "the orphans have ended and are gone")
        master.send_signal(signal.SIGTERM)
        wait_until(lambda: outer.poll() is not None, "it has ended")
        assert outer.wait() == 0
    finally:
        outer.kill()
        outer.wait()
        log.close()


def _below(master: psutil.Process) -> list[str]:
    """The names of its children, whoever has started them."""
    names = []
    for process in master.children():
        with suppress(psutil.NoSuchProcess):  # it has been reaped meanwhile
            names.append(process.name())
    return names
