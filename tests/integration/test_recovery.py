"""How soon another worker has the messages of one that was killed as a whole, and what they are blamed for."""

from __future__ import annotations

import signal
import time

import pytest

from support import Shop
from support.stopwatch import Stopwatch
from support.waiting import wait_until


@pytest.mark.parametrize("kept_by", ["a living worker", "a later worker"])
def test_a_killed_worker_s_messages_run_elsewhere_within_its_lease_and_three_seconds(
    kept_by: str, any_shop: Shop
) -> None:
    lease = {"TEST_LEASE": "5"}
    doomed = any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    any_shop.task("gate").delay("go")
    for number in range(3):
        any_shop.task("noted").delay(f"n{number}")
    wait_until(lambda: any_shop.ran() == ["start go"], "the task runs")
    wait_until(lambda: any_shop.in_flight() == 4, "the others are prefetched")
    if kept_by == "a living worker":
        any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    doomed.kill_whole()
    watch = Stopwatch()
    (any_shop.folder / "go").touch()
    if kept_by == "a later worker":
        time.sleep(1.0)
        any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    wait_until(lambda: any_shop.ran()[1:] == ["start go", "end go", "n0", "n1", "n2"], "all have run, in order")
    assert watch.s < 5 + 3
    wait_until(lambda: any_shop.in_flight() == 0, "the last ack has left")


def test_a_message_that_takes_whole_workers_down_is_dead_lettered_and_its_neighbours_are_not(any_shop: Shop) -> None:
    lease = {"TEST_LEASE": "2"}
    any_shop.task("gate").delay("never")
    any_shop.task("noted").delay("harmless")
    for count in range(1, 4):
        worker = any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
        wait_until(lambda count=count: any_shop.ran() == ["start never"] * count, "it runs")
        wait_until(lambda: any_shop.in_flight() == 2, "its neighbour is prefetched")
        wait_until(lambda: any_shop.marked() == 1, "the broker knows that it runs")
        worker.kill_whole()
    any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    wait_until(lambda: "harmless" in any_shop.ran(), "its neighbour runs")
    (letter,) = wait_until(any_shop.dead, "it is dead-lettered")
    assert (letter.reason, letter.crashes) == ("crashed", 3)
    assert any_shop.ran() == ["start never"] * 3 + ["harmless"]


def test_a_stop_that_ends_in_a_kill_blames_no_task_however_often(any_shop: Shop) -> None:
    lease = {"TEST_LEASE": "1"}
    any_shop.task("gate").delay("go")
    for count in range(1, 4):
        worker = any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
        wait_until(lambda count=count: any_shop.ran() == ["start go"] * count, "it runs")
        wait_until(lambda: any_shop.marked() == 1, "the broker knows that it runs")
        worker.signal(signal.SIGTERM)
        wait_until(lambda: any_shop.marked() == 0, "the broker knows of the stop")
        worker.kill_whole()
    (any_shop.folder / "go").touch()
    any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    wait_until(lambda: "end go" in any_shop.ran(), "it has run to its end")
    assert any_shop.ran() == ["start go"] * 4 + ["end go"]
    assert any_shop.dead() == []
