"""A stock Celery worker and a qworker on one queue; either is stopped warm, cold, or by kill -9, and started again.

What Celery itself does not promise is not asked of it: it acks late here (its default acks first, and a kill then
loses the task), it publishes the rest of a chain and retries in steps of their own (a kill in between repeats them, so
there are none here), and between its BRPOP and the entry in `unacked` a message is nowhere for a moment.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from types import TracebackType

import psutil
import pytest

from support import wait_until
from support.chaos import QUEUE, Fleet, Kill, Load, Office, boottime, demand_none, drain, row, scaled, storm

Record = Callable[[str, object], None]

CONCURRENCY = 2
LEASE_S = 5.0
#: After this Celery and qworker give back what a Celery worker held that is gone.
VISIBILITY_S = 6.0
WARM, COLD, KILL = signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL
CASES = [(who, how) for who in ("Celery", "qworker") for how in (WARM, COLD, KILL)]


class Stock:
    """A stock Celery worker that is started again under another name. A context manager."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._count = 0
        self._start()

    def __enter__(self) -> Stock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._kill()
        sys.stderr.write(self._path.read_text(errors="replace"))

    def wait_ready(self) -> None:
        wait_until(lambda: " ready." in self._path.read_text(errors="replace"), "the Celery worker is ready", 40.0)

    def stop(self, how: signal.Signals) -> list[Kill]:
        """Stop it and start another; returns the faults that this was."""
        faults = [] if how == WARM else [Kill(boottime(), self.name)]
        if how == KILL:
            self._kill()
        else:
            self._process.send_signal(how)
            self._process.wait(30)
        self._start()
        return faults

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


@pytest.mark.timeout(scaled(300, 900))
def test_either_may_be_stopped_in_any_way_and_nothing_is_lost_or_repeated(
    open_office: Callable[..., Office], rng: random.Random, seed: int, record_property: Record
) -> None:
    options = {"lease_timeout": LEASE_S, "visibility_timeout": VISIBILITY_S}
    office = open_office(broker_transport_options=options)
    load = Load(office.app, scaled(200, 3000), rng, kinds={"plain": 80, "delayed": 10, "once": 10})
    stops: Counter[str] = Counter()
    deck: list[tuple[str, signal.Signals]] = []
    with (
        Fleet(office.folder, 1, "-c", str(CONCURRENCY), "-Q", QUEUE, "-l", "ERROR") as fleet,
        Stock(office) as stock,
    ):
        fleet.wait_ready()
        stock.wait_ready()

        def strike() -> bool:
            deck[:] = deck or rng.sample(CASES, len(CASES))
            who, how = deck[-1]
            if who == "Celery":
                fleet.faults += stock.stop(how)
            elif not fleet.end(how):
                return False
            stops[f"{who} {how.name}"] += 1
            deck.pop()
            return True

        storm(office, fleet, load, strike, rng, every_s=scaled(0.7, 3.0), most=scaled(6, 36), least=6, backlog=30)
        drain(office, fleet)
        fleet.stop()
        stock.stop(WARM)
    verdict = office.judge(load.tasks, fleet.faults)
    row(
        record_property, "Celery and qworker on one queue", f"{len(load.tasks)} tasks, 2 workers × {CONCURRENCY}",
        stops, verdict, seed=seed,
    )  # fmt: skip
    demand_none(verdict.complaints, fleet.complaints)
    assert verdict.vanished <= sum(stops.values()) * CONCURRENCY
