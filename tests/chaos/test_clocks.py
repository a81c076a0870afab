"""A worker's clock jumps by an hour, forth and back: leases and delays know only clocks that nobody moves."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from support.chaos import QUEUE, Fleet, Load, Office, demand_none, drain, row, scaled, storm

Record = Callable[[str, object], None]

CONCURRENCY = 3
LEASE_S = 3.0
HOUR_S = 3600.0
_SHIM = Path(__file__).resolve().parent.parent / "support" / "chaos" / "clock_shift.py"


class WallClock:
    """The time of day of one test's workers."""

    def __init__(self, folder: Path) -> None:
        (folder / "shim").mkdir()
        (folder / "shim" / "sitecustomize.py").write_text(_SHIM.read_text())
        self._file = folder / "shim" / "shift"
        self._file.write_bytes(struct.pack("<d", 0.0))
        path = os.pathsep.join(filter(None, (str(folder / "shim"), os.environ.get("PYTHONPATH"))))
        self.env = {"PYTHONPATH": path, "CHAOS_CLOCK": str(self._file)}

    def shift(self, seconds: float) -> None:
        """From now on it is so much later than it is."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("<d", seconds))


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


@pytest.mark.timeout(scaled(300, 600))
def test_a_clock_that_jumps_by_an_hour_ends_no_lease_and_delays_nothing(
    clock: WallClock, open_office: Callable[..., Office], rng: random.Random, seed: int, record_property: Record
) -> None:
    office = open_office(lease_s=LEASE_S)
    load = Load(office.app, scaled(150, 2000), rng, longest_s=0.6)
    shifts = [HOUR_S, -HOUR_S, 0.0]
    jumps = 0

    def strike() -> None:
        nonlocal jumps
        clock.shift(shifts[jumps % len(shifts)])
        jumps += 1
        if jumps % len(shifts) == 2:
            jumping.kill("tree", rng)

    arguments = ("-c", str(CONCURRENCY), "-Q", QUEUE, "-l", "ERROR")
    with (
        Fleet(office.folder, 1, *arguments, env=clock.env) as jumping,
        Fleet(office.folder, 1, *arguments, prefix="steady") as steady,
    ):
        for fleet in (jumping, steady):
            fleet.wait_ready()
        storm(office, jumping, load, strike, rng, every_s=0.8, most=scaled(6, 60), backlog=20)
        drain(office, jumping)
        for fleet in (jumping, steady):
            fleet.stop()
    verdict = office.judge(load.tasks, jumping.faults)
    faults = {"jump": jumps, **jumping.kills}
    row(
        record_property, "clock jumps of ± 1 h", f"{len(load.tasks)} tasks, 2 workers × {CONCURRENCY}", faults,
        verdict, seed=seed,
    )  # fmt: skip
    demand_none(verdict.complaints, jumping.complaints, steady.complaints)
    assert jumps >= len(shifts)
