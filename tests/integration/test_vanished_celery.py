"""A real Celery worker beside qworker: killed with acks_late tasks in its hands, or alive and slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from support import Shop
from support.waiting import wait_until

_STOCK = """
import celery, os, time
from pathlib import Path

app = celery.Celery("stock", broker={url!r}, backend={url!r})
app.conf.task_default_queue = "hipri"
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 4
app.conf.broker_transport_options = {{"visibility_timeout": {visibility}}}


def note(text):
    fd = os.open("by_celery.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (text + "\\n").encode())
    os.close(fd)


@app.task(name="shop.gate")
def gate(name):
    note("start " + name)
    while not Path(name).exists():
        time.sleep(0.01)
    note("end " + name)


@app.task(name="shop.noted")
def noted(text):
    note(text)
"""
#: What a worker with two processes and a multiplier of 4 holds.
WINDOW = 8


class Stock:
    """A Celery worker with two processes, in a process group of its own."""

    def __init__(self, folder: Path, url: str, visibility_s: int) -> None:
        (folder / "stock.py").write_text(_STOCK.format(url=url, visibility=visibility_s))
        self._folder = folder
        self._log = (folder / "celery.log").open("wb")
        command = [sys.executable, "-m", "celery", "-A", "stock", "worker", "-c", "2", "-Q", "hipri", "-l", "INFO"]
        self._process = subprocess.Popen(
            command, cwd=folder, stdout=self._log, stderr=self._log, env=os.environ, start_new_session=True
        )

    def ran(self) -> list[str]:
        path = self._folder / "by_celery.txt"
        return path.read_text().splitlines() if path.exists() else []

    def kill(self) -> None:
        """Kill -9 of all of it at once, as the death of its container would."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()


@pytest.fixture
def stock(tmp_path: Path, redis_url: str) -> Iterator[Callable[[int], Stock]]:
    started: list[Stock] = []

    def start(visibility_s: int) -> Stock:
        started.append(Stock(tmp_path, redis_url, visibility_s))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def qworker(shop: Shop, visibility_s: float) -> Any:
    options = json.dumps({"visibility_timeout": visibility_s})
    return shop.worker("-c", "2", "-Q", "hipri", env={"TEST_LEASE": "3", "TEST_BROKER_OPTIONS": options})


def fill(shop: Shop, stock: Stock, client: redis.Redis) -> list[str]:
    """Give the Celery worker two long tasks and all the short ones that it prefetches, and leave three on the queue."""
    for name in ("a", "b"):
        shop.task("gate").delay(name)
    short = [f"n{number}" for number in range(WINDOW + 1)]
    for text in short:
        shop.task("noted").delay(text)
    wait_until(lambda: sorted(stock.ran()) == ["start a", "start b"], "the Celery worker runs two tasks", 30.0)
    wait_until(lambda: client.hlen("unacked") == WINDOW, "it has prefetched")
    assert shop.depth() == 3
    return short


def test_all_messages_of_a_killed_celery_worker_are_run_and_none_twice(
    shop: Shop, stock: Callable[[int], Stock], client: redis.Redis, tmp_path: Path
) -> None:
    dying = stock(3600)  # it restores nothing of its own while it lives
    short = fill(shop, dying, client)
    dying.kill()
    for name in ("a", "b"):
        (tmp_path / name).touch()
    worker = qworker(shop, 3)
    expected = sorted([*short, "start a", "end a", "start b", "end b"])
    wait_until(lambda: len(shop.ran()) >= len(expected), "everything has run", 20.0)
    worker.wait_log("recovered 8 messages")
    assert worker.stop() == 0
    assert sorted(shop.ran()) == expected
    assert (client.hlen("unacked"), client.zcard("unacked_index"), shop.depth(), shop.dead()) == (0, 0, 0, [])


def test_what_a_living_celery_worker_holds_stays_with_it(
    shop: Shop, stock: Callable[[int], Stock], client: redis.Redis, tmp_path: Path
) -> None:
    living = stock(3600)
    short = fill(shop, living, client)
    worker = qworker(shop, 3600)
    wait_until(lambda: len(shop.ran()) == 3, "qworker runs what waits on the queue")
    client.config_resetstat()
    # It looks for the dead twice a second with this lease.
    wait_until(lambda: client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0) > 12, "it has looked")
    assert client.hlen("unacked") == WINDOW
    assert client.exists("unacked_mutex") == 0
    for name in ("a", "b"):
        (tmp_path / name).touch()
    wait_until(lambda: client.hlen("unacked") == 0, "the Celery worker finishes")
    assert worker.stop() == 0
    assert sorted([*shop.ran(), *living.ran()]) == sorted([*short, "start a", "end a", "start b", "end b"])
