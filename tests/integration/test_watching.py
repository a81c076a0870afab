"""A worker that goes deaf, or whose consumer dies: planted into real processes, because no input brings it about.

The plant is a `sitecustomize` module: it makes the consumer of a worker fail when a file of that name appears.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support import Shop, Worker, wait_until

_PLANT = """
from pathlib import Path
from qworker.transports.redis import RedisTransport
from qworker.worker.consumer import Consumer

folder = Path(__file__).parent
turn, reserve, connect = Consumer.turn, RedisTransport.reserve, RedisTransport.connect

def failing_turn(self):
    if (folder / "boom").exists():
        if (folder / "boom").read_text() == "once":
            (folder / "boom").unlink()
        raise RuntimeError("planted")
    turn(self)

def deaf_reserve(self, queues, limit, **more):
    if not (folder / "deaf").exists():
        return reserve(self, queues, limit, **more)
    (folder / "is deaf").touch()
    return []

def healing_connect(self):
    connect(self)
    if (folder / "deaf").exists() and (folder / "deaf").read_text() == "until connected" and self._owner:
        (folder / "deaf").unlink()

Consumer.turn, RedisTransport.reserve, RedisTransport.connect = failing_turn, deaf_reserve, healing_connect
"""


@pytest.fixture
def worker(shop: Shop) -> Worker:
    """A worker with two children that loses its patience after two or three seconds."""
    plants = shop.folder / "plants"
    plants.mkdir()
    (plants / "sitecustomize.py").write_text(_PLANT)
    source = (shop.folder / "shop.py").read_text()
    shop.write(source + "\napp.conf.worker_deaf_timeout = 2.5\n")
    path = os.pathsep.join([str(plants), *filter(None, [os.environ.get("PYTHONPATH")])])
    return shop.worker("-c", "2", "-Q", "hipri", env={"PYTHONPATH": path})


def plant(shop: Shop, name: str, text: str = "") -> Path:
    path = shop.folder / "plants" / name
    path.with_suffix(".part").write_text(text)
    path.with_suffix(".part").rename(path)
    return path


def deafen(shop: Shop, how: str) -> None:
    """Return when the worker does not hear: what it had asked for before could still bring a message."""
    plant(shop, "deaf", how)
    wait_until(lambda: (shop.folder / "plants" / "is deaf").exists(), "the worker is deaf")


def test_a_consumer_that_dies_is_replaced_and_running_tasks_go_on(shop: Shop, worker: Worker) -> None:
    running = shop.task("gate").delay("long")
    wait_until(lambda: shop.ran() == ["start long"], "the long task runs")
    plant(shop, "boom", "once")
    assert shop.task("add").delay(1).get(timeout=10) == 1
    worker.wait_log("the consumer is started anew")
    (shop.folder / "long").touch()
    running.get(timeout=10)
    assert shop.ran() == ["start long", "end long"]
    assert worker.stop() == 0
    assert shop.in_flight() == 0


def test_a_consumer_that_dies_in_a_stop_still_gives_everything_back(shop: Shop, worker: Worker) -> None:
    for name in ("one", "two"):
        shop.task("gate").delay(name)
    wait_until(lambda: len(shop.ran()) == 2, "two tasks run")
    for _ in range(4):
        shop.task("add").delay(1)
    wait_until(lambda: shop.in_flight() == 6, "the others wait in the worker")
    plant(shop, "boom", "once")
    worker.signal(signal.SIGTERM)
    wait_until(lambda: shop.depth() == 4, "what has not started is back")
    (shop.folder / "one").touch()
    (shop.folder / "two").touch()
    assert worker.wait() == 0
    assert (shop.depth(), shop.in_flight()) == (4, 0)
    assert "the consumer is started anew" in worker.log


def test_a_consumer_that_keeps_dying_ends_the_worker_with_70(shop: Shop, worker: Worker) -> None:
    plant(shop, "boom", "always")
    assert worker.wait() == 70
    worker.wait_log("keeps failing")


def test_a_worker_that_stood_still_is_not_taken_for_a_hung_one(shop: Shop, worker: Worker) -> None:
    worker.signal(signal.SIGSTOP)
    time.sleep(4)  # longer than its patience: nothing to wait for
    worker.signal(signal.SIGCONT)
    assert shop.task("add").delay(1).get(timeout=10) == 1
    assert worker.stop() == 0
    assert "hangs" not in worker.log


def test_a_quiet_worker_without_work_is_not_taken_for_a_hung_one(shop: Shop, worker: Worker) -> None:
    worker.signal(signal.SIGTSTP)
    worker.wait_log("quiet: nothing new is fetched")
    time.sleep(4.5)  # longer than its patience: nothing to wait for
    worker.signal(signal.SIGCONT)
    assert shop.task("add").delay(1).get(timeout=10) == 1
    assert worker.stop() == 0
    assert "hangs" not in worker.log


def test_a_deaf_worker_makes_its_connection_anew_and_hears_again(shop: Shop, worker: Worker) -> None:
    deafen(shop, "until connected")
    assert shop.task("add").delay(1).get(timeout=15) == 1
    assert "messages wait, and for 2.5 s none has come" in worker.log
    assert worker.stop() == 0


def test_a_worker_that_stays_deaf_ends_with_70_and_gives_back_what_it_holds(shop: Shop, worker: Worker) -> None:
    shop.task("gate").delay("long")
    wait_until(lambda: shop.ran() == ["start long"], "the long task runs")
    deafen(shop, "for good")
    shop.task("add").delay(1)
    assert worker.wait() == 70
    assert "this worker is deaf and ends" in worker.log
    assert shop.in_flight() == 0
    assert shop.depth() == 2
