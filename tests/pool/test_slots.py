"""The shared record of what each child runs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from qworker.core.clock import SystemClock
from qworker.pool import Running, SlotTable


@pytest.fixture
def table() -> Iterator[SlotTable]:
    table = SlotTable.create()
    yield table
    table.close()


def test_what_one_process_writes_another_one_reads(table: SlotTable) -> None:
    theirs = SlotTable(os.dup(table.fd))
    theirs.begin(3, 17, 12.5, "id-1 app.tö".encode())
    assert table.read(3) == Running(17, 12.5, "id-1 app.tö")
    theirs.end(3)
    assert table.read(3) is None
    theirs.close()


def test_slots_do_not_touch_their_neighbours(table: SlotTable) -> None:
    table.begin(0, 1, 1.0, b"x" * 1000)
    assert table.read(1) is None
    running = table.read(0)
    assert running is not None
    assert running.text == "x" * 200


def test_a_lease_is_certain_until_its_horizon(table: SlotTable) -> None:
    assert not table.has_lease()
    table.set_lease(SystemClock().boottime() + 60)
    assert table.has_lease()
    table.set_lease(SystemClock().boottime() - 0.001)
    assert not table.has_lease()


def test_the_brokers_time_of_day_is_known_to_every_process_that_maps_the_table(table: SlotTable) -> None:
    assert table.broker_base() == 0.0
    table.set_broker_base(1.5e9)
    theirs = SlotTable(os.dup(table.fd))
    assert theirs.broker_base() == 1.5e9
    theirs.close()
