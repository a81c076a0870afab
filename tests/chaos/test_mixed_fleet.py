"""A stock Celery worker and a qworker on one queue; either is stopped warm, cold, or by kill -9, and started again.

What Celery itself does not promise is not asked of it: it acks late here (its default acks first, and a kill then
loses the task), it publishes the rest of a chain and retries in steps of their own (a kill in between repeats them, so
there are none here), between its BRPOP and the entry in `unacked` a message is nowhere for a moment, and what runs at
most once is acked a moment after it has begun (it is not killed in these moments); its warm stop may last for ever.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import psutil
import pytest

from support import RedisServer, wait_until
from support.chaos import QUEUE, Fleet, Kill, Load, Office, Task, boottime, demand_none, drain, row, scaled, storm

Record = Callable[[str, object], None]

CONCURRENCY = 2
LEASE_S = 5.0
#: After this Celery and qworker give back what a Celery worker held that is gone.
VISIBILITY_S = 6.0
WARM, COLD, KILL = signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL
CASES = [(who, how) for who in ("Celery", "qworker") for how in (WARM, COLD, KILL)]


class Stock:
    """A stock Celery worker that is started again under another name. A context manager."""

    def __init__(self, office: Office, server: RedisServer) -> None:
        self._office = office
        self._server = server
        self._count = 0
        self._start()

    def __enter__(self) -> Stock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._kill()
        sys.stderr.write(self._path.read_text(errors="replace"))

    def wait_ready(self) -> None:
        wait_until(lambda: " ready." in self._path.read_text(errors="replace"), "the Celery worker is ready", 40.0)

    def stop(self, how: signal.Signals, tasks: Sequence[Task] = ()) -> list[Kill] | None:
        """Stop it and start another; returns the faults that this was, or None: it would lose one of `tasks` now."""
        fault = Kill(boottime(), self.name)
        if how == WARM:
            self._process.send_signal(how)
        elif not self._end_between(how, tasks):
            return None
        # A warm stop may hang, and what is not acked meanwhile is given back after the visibility time-out.
        is_fault = not self._has_ended() or how != WARM or boottime() > fault.at + VISIBILITY_S
        self._kill()
        self._start()
        return [fault] if is_fault else []

    def _has_ended(self) -> bool:
        try:
            wait_until(lambda: self._process.poll() is not None, "the Celery worker ends", 15.0)
        except AssertionError:
            return False
        return True

    def _end_between(self, how: signal.Signals, tasks: Sequence[Task]) -> bool:
        """Kill it, or tell it to leave all, but not between two steps that it takes for one of `tasks`."""
        master = psutil.Process(self._process.pid)
        master.suspend()
        with self._server.client() as client:
            client.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
            try:
                is_between = self._is_between(client, tasks)
                if how == KILL and not is_between:
                    _hang_up(client, master)
                    self._kill()
                    return True
            finally:
                client.execute_command("CLIENT", "UNPAUSE")
        if not is_between:
            master.send_signal(how)
        master.resume()
        return not is_between

    def _is_between(self, client: Any, tasks: Sequence[Task]) -> bool:
        """Whether a message stands nowhere, or one that runs once at most may have begun and is not acked."""
        ours = {tag for key in client.keys("qworker:held:*") for tag in client.smembers(key)}
        entries = [entry for tag, entry in client.hgetall("unacked").items() if tag not in ours]
        its_own = {json.loads(entry)[0]["headers"]["id"] for entry in entries}
        known = self._office.where().keys() | {run.key[0] for run in self._office.runs()}
        return any(task.id in its_own if task.at_most_once else task.id not in known for task in tasks)

    def _kill(self) -> None:
        """All its processes: its children would otherwise go on for a while."""
        try:
            tree = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in tree:
            process.kill()
        self._process.wait(10)

    def _start(self) -> None:
        self._count += 1
        self.name = f"celery{self._count}"
        self._path = self._office.folder / f"{self.name}.log"
        command = ("celery", "-A", "stock", "worker", "-c", str(CONCURRENCY), "-Q", QUEUE, "-n", f"{self.name}@here")
        quiet = ("-l", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat")
        with self._path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command, *quiet],
                cwd=self._office.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {"CHAOS_WORKER": self.name},
            )  # fmt: skip


def _hang_up(client: Any, process: psutil.Process) -> None:
    """End its connections: the server would hand the next message to one that nobody reads."""
    connections = getattr(process, "net_connections", None) or process.connections  # before psutil 6
    for connection in connections("tcp"):
        client.client_kill_filter(addr=f"{connection.laddr.ip}:{connection.laddr.port}")


@pytest.mark.timeout(scaled(300, 900))
def test_either_may_be_stopped_in_any_way_and_nothing_is_lost_or_repeated(
    server: RedisServer, open_office: Callable[..., Office], rng: random.Random, seed: int, record_property: Record
) -> None:
    options = {"lease_timeout": LEASE_S, "visibility_timeout": VISIBILITY_S}
    office = open_office(broker_transport_options=options)
    load = Load(office.app, scaled(200, 3000), rng, kinds={"plain": 80, "delayed": 10, "once": 10})
    stops: Counter[str] = Counter()
    deck: list[tuple[str, signal.Signals]] = []
    with (
        Fleet(office.folder, 1, "-c", str(CONCURRENCY), "-Q", QUEUE, "-l", "ERROR") as fleet,
        Stock(office, server) as stock,
    ):
        fleet.wait_ready()
        stock.wait_ready()

        def strike() -> bool:
            deck[:] = deck or rng.sample(CASES, len(CASES))
            who, how = deck[-1]
            if who == "Celery":
                faults = stock.stop(how, load.tasks)
                if faults is None:
                    return False
                fleet.faults += faults
            elif not fleet.end(how):
                return False
            stops[f"{who} {how.name}"] += 1
            deck.pop()
            return True

        storm(office, fleet, load, strike, rng, every_s=scaled(0.7, 3.0), most=scaled(6, 36), least=6, backlog=30)
        drain(office, fleet)
        fleet.stop()
        fleet.faults += stock.stop(WARM) or []
    verdict = office.judge(load.tasks, fleet.faults)
    row(
        record_property, "Celery and qworker on one queue", f"{len(load.tasks)} tasks, 2 workers × {CONCURRENCY}",
        stops, verdict, seed=seed,
    )  # fmt: skip
    demand_none(verdict.complaints, fleet.complaints)
    assert verdict.vanished <= sum(stops.values()) * CONCURRENCY
