"""A consumer thread that hangs: the process starts its command anew, and what it held is neither lost nor blamed.

What hangs is planted by a `sitecustomize` module: no input brings it about. Files in its folder say where and when.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from support import Shop, Worker, wait_until

_PLANT = """
import logging, os, threading, time
from pathlib import Path

import qworker.worker.hang as hang
from qworker.transports.sqlite import SqliteTransport
from qworker.worker.consumer import Consumer
from qworker.worker.image import Image

folder = Path(__file__).parent
turn, end, give_back, replace = Consumer.turn, hang.end_for_certain, hang._give_back, Image.replace


class Stuck(logging.Handler):
    def emit(self, record):  # under the handler's lock
        if record.getMessage() == "get stuck":
            time.sleep(1000)


logging.getLogger("qworker.worker").addHandler(Stuck())


def hanging_turn(self):
    file = folder / "hang"
    if file.exists():
        how = file.read_text()
        if how != "always":
            file.unlink()
        if how == "in a transaction":
            self._link.transport._file.write(lambda db: time.sleep(1000))
        logging.getLogger("qworker.worker").warning("get stuck")
    turn(self)


def stop_at(name):
    if (folder / name).exists():
        (folder / name).rename(folder / f"{name} reached")
        while not (folder / f"{name} left").exists():
            time.sleep(0.01)


def slow_end(*args):
    stop_at("before the kill")
    dead = end(*args)
    stop_at("after the kill")
    return dead


def slow_give_back(*args):
    back = give_back(*args)
    stop_at("after giving back")
    return back


def slow_replace(self, *args, **more):
    stop_at("before exec")
    if (folder / "no exec").exists():
        self._command[0] = "/nowhere"
    replace(self, *args, **more)


Consumer.turn, Image.replace = hanging_turn, slow_replace
hang.end_for_certain, hang._give_back = slow_end, slow_give_back
if os.environ.get("_QWORKER_LEGACY"):
    stop_at("after exec")
"""
_MORE = """
app.conf.worker_deaf_timeout = 3.0


@app.task
def environment():
    return [name for name in os.environ if "LEGACY" in name]
"""


@pytest.fixture
def plants(tmp_path: Path) -> Path:
    folder = tmp_path / "plants"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_PLANT)
    return folder


@pytest.fixture
def start(plants: Path) -> Callable[..., Worker]:
    """Starts a worker with two children that loses its patience after three seconds."""

    def start(shop: Shop, *arguments: str, **env: str) -> Worker:
        shop.write((shop.folder / "shop.py").read_text() + _MORE)
        path = os.pathsep.join([str(plants), *filter(None, [os.environ.get("PYTHONPATH")])])
        return shop.worker("-c", "2", "-Q", "hipri", *arguments, env={"PYTHONPATH": path, **env})

    return start


def hang(plants: Path, how: str = "once") -> None:
    (plants / "plant").write_text(how)
    (plants / "plant").rename(plants / "hang")


def reached(plants: Path, name: str) -> None:
    wait_until(lambda: (plants / f"{name} reached").exists(), f"the worker is {name}", 30.0)


def run_two(shop: Shop) -> list[object]:
    """Two tasks that run, and three that wait."""
    results = [shop.task("gate").delay(name) for name in ("one", "two")]
    wait_until(lambda: len(shop.ran()) == 2, "two tasks run")
    return results + [shop.task("noted").delay(f"waited {n}") for n in range(3)]


def open_gates(shop: Shop) -> None:
    for name in ("one", "two"):
        (shop.folder / name).touch()


def test_a_process_whose_consumer_hangs_starts_anew_and_runs_everything(
    any_shop: Shop, plants: Path, start: Callable[..., Worker]
) -> None:
    shop = any_shop
    worker = start(shop)
    assert shop.task("add").delay(1).get(timeout=10) == 1
    wait_until(lambda: shop.in_flight() == 0, "everything is settled")
    started_at, descriptors = worker.tree()[0].create_time(), psutil.Process(worker.pid).num_fds()
    before = {process.pid for process in worker.tree()[1:]}
    results = run_two(shop)
    hang(plants)
    wait_until(lambda: len(shop.ran()) == 4, "what was cut runs again", 30.0)
    open_gates(shop)
    for result in results:
        result.get(timeout=20)
    assert sorted(shop.ran()[:4]) == ["start one", "start one", "start two", "start two"]
    assert sorted(shop.ran()[4:]) == ["end one", "end two", "waited 0", "waited 1", "waited 2"]
    assert worker.tree()[0].create_time() == started_at
    assert not before & {process.pid for process in worker.tree()[1:]}
    assert shop.task("add").delay(1).get(timeout=10) == 1
    wait_until(lambda: shop.in_flight() == 0, "everything is settled")
    wait_until(lambda: psutil.Process(worker.pid).num_fds() == descriptors, "it has as many descriptors as before")
    assert shop.dead() == []
    for text in (
        "the consumer thread hangs: no turn for 3 s, worker running",
        "in hanging_turn",
        "gave back ",
    ):
        assert text in worker.log
    worker.wait_log("this process was started anew because its consumer thread hung (1 of at most 3 times")
    assert worker.stop() == 0


def test_hanging_for_the_fourth_time_ends_the_worker_with_70_and_blames_nobody(
    shop: Shop, plants: Path, start: Callable[..., Worker]
) -> None:
    worker = start(shop)
    run_two(shop)
    for times in range(4):
        wait_until(lambda times=times: len(shop.ran()) == 2 * (times + 1), "two tasks run", 30.0)
        hang(plants)
        if times < 3:
            worker.wait_log("this process was started anew", times=times + 1, limit_s=30.0)
    assert worker.wait(30.0) == 70
    assert "that has been done 3 times within 10 minutes" in worker.log
    assert shop.in_flight() == 0
    assert shop.depth() == 5
    assert shop.dead() == []
    wait_until(lambda: not worker.survivors(), "no child survives")


def test_a_worker_that_was_stopping_is_not_replaced_but_gives_everything_back(
    shop: Shop, plants: Path, start: Callable[..., Worker]
) -> None:
    worker = start(shop)
    run_two(shop)
    worker.signal(signal.SIGTERM)
    worker.wait_log("warm shutdown")
    hang(plants)
    assert worker.wait(30.0) == 70
    assert "the worker was stopping already" in worker.log
    assert (shop.in_flight(), shop.depth()) == (0, 5)


@pytest.mark.parametrize("when", ["before the kill", "after giving back", "before exec", "after exec"])
def test_a_term_during_the_replacement_is_obeyed(
    shop: Shop, plants: Path, start: Callable[..., Worker], when: str
) -> None:
    worker = start(shop)
    run_two(shop)
    (plants / when).touch()
    hang(plants)
    reached(plants, when)
    worker.signal(signal.SIGTERM)
    (plants / f"{when} left").touch()
    assert worker.wait(30.0) == 0
    assert "received SIGTERM" in worker.log
    assert (shop.in_flight(), shop.depth()) == (0, 5)


@pytest.mark.parametrize(
    "when", ["before the kill", "after the kill", "after giving back", "before exec", "after exec"]
)
def test_a_kill_during_the_replacement_loses_nothing(
    any_shop: Shop, plants: Path, start: Callable[..., Worker], when: str
) -> None:
    shop = any_shop
    worker = start(shop, TEST_LEASE="2")
    results = run_two(shop)
    (plants / when).touch()
    hang(plants)
    reached(plants, when)
    worker.signal(signal.SIGKILL)
    worker.wait()
    wait_until(lambda: not worker.survivors(), "no child survives")
    open_gates(shop)
    shop.worker(env={"TEST_LEASE": "2"})
    for result in results:
        result.get(timeout=30)
    assert shop.ran().count("end one") == shop.ran().count("end two") == 1
    assert shop.dead() == []


def test_what_the_hung_thread_keeps_from_being_given_back_is_given_back_by_the_next_image(
    sqlite_shop: Shop, plants: Path, start: Callable[..., Worker]
) -> None:
    worker = start(sqlite_shop)
    results = run_two(sqlite_shop)
    hang(plants, "in a transaction")
    worker.wait_log("what is held here could not be given back", limit_s=30.0)
    worker.wait_log("given back of what was held before", limit_s=30.0)
    open_gates(sqlite_shop)
    for result in results:
        result.get(timeout=10)  # well before the lease has ended
    assert worker.stop() == 0


def test_a_quiet_worker_stays_quiet_and_nothing_is_purged_again(
    shop: Shop, plants: Path, start: Callable[..., Worker]
) -> None:
    worker = start(shop, "--purge")
    worker.signal(signal.SIGTTIN)
    wait_until(lambda: len(worker.children()) == 3, "there are three children")
    worker.signal(signal.SIGTSTP)
    worker.wait_log("quiet: nothing new is fetched")
    waiting = shop.app.send_task("shop.environment")
    hang(plants)
    worker.wait_log("ready: 3 children", limit_s=30.0)
    worker.wait_log("quiet: nothing new is fetched", times=2)
    assert shop.depth() == 1
    worker.signal(signal.SIGCONT)
    assert waiting.get(timeout=10) == []
    assert worker.stop() == 0


def test_a_process_that_cannot_start_anew_ends_with_70(shop: Shop, plants: Path, start: Callable[..., Worker]) -> None:
    worker = start(shop)
    run_two(shop)
    (plants / "no exec").touch()
    hang(plants)
    assert worker.wait(30.0) == 70
    assert "cannot start its command anew" in worker.log
    assert (shop.in_flight(), shop.depth()) == (0, 5)
