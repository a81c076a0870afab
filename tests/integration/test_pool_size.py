"""TTIN and TTOU at awkward moments: the pool ends up with exactly as many children as it was told."""

from __future__ import annotations

import signal
import time

import pytest

from support import Shop, Worker, wait_until

SLOW_BOOT = "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep({seconds}))\n"


def boots_slowly(shop: Shop, seconds: float) -> None:
    source = (shop.folder / "shop.py").read_text()
    (shop.folder / "shop.py").write_text(source + SLOW_BOOT.format(seconds=seconds))


def wait_size(worker: Worker, size: int) -> None:
    """Wait until there are so many children, booting ones included, and have been for half a second without a break."""
    since = time.monotonic()

    def is_settled() -> bool:
        nonlocal since
        if len(worker.forked()) != size:
            since = time.monotonic()
        return time.monotonic() - since >= 0.5

    wait_until(is_settled, f"{size} children")


def test_ttou_while_all_children_boot(sqlite_shop: Shop) -> None:
    boots_slowly(sqlite_shop, 1.0)
    worker = sqlite_shop.worker("-c", "3", "-Q", "hipri", ready=False)
    wait_until(lambda: len(worker.forked()) == 3, "all children have been forked")
    worker.signal(signal.SIGTTOU)
    worker.wait_log("shrinks to 2")
    wait_size(worker, 2)
    worker.wait_ready()
    assert sqlite_shop.task("add").delay(1).get(timeout=10) == 1
    assert worker.stop() == 0


@pytest.mark.parametrize("size", [2, 3])
def test_ttou_while_one_is_being_recycled(sqlite_shop: Shop, size: int) -> None:
    boots_slowly(sqlite_shop, 0.7)
    worker = sqlite_shop.worker("-c", str(size), "-Q", "hipri", "--max-tasks-per-child", "2")
    assert [sqlite_shop.task("add").delay(i).get(timeout=10) for i in range(size + 1)] == list(range(size + 1))
    wait_until(lambda: len(worker.forked()) == size + 1, "a successor boots")
    worker.signal(signal.SIGTTOU)
    worker.wait_log(f"shrinks to {size - 1}")
    wait_size(worker, size - 1)
    assert [sqlite_shop.task("add").delay(i).get(timeout=10) for i in range(6)] == list(range(6))
    assert worker.stop() == 0


def test_ttou_and_ttin_in_quick_succession_under_load(any_shop: Shop) -> None:
    limits = ("--max-tasks-per-child", "5")
    worker = any_shop.worker("-c", "4", "-Q", "hipri", "-l", "WARNING", *limits)
    results = [any_shop.task("add").delay(i) for i in range(400)]
    for number in (signal.SIGTTOU,) * 3 + (signal.SIGTTIN,) * 4 + (signal.SIGTTOU,) * 3:
        worker.signal(number)
        time.sleep(0.03)  # like signals that are sent at once count as one
    assert [r.get(timeout=30) for r in results] == list(range(400))
    wait_size(worker, 2)
    assert worker.stop() == 0


def test_ttou_during_a_reload(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "3", "-Q", "hipri")
    boots_slowly(any_shop, 0.5)
    worker.signal(signal.SIGHUP)
    wait_until(lambda: len(worker.forked()) == 6, "old and new children")
    worker.signal(signal.SIGTTOU)
    worker.wait_log("reload: done")
    wait_size(worker, 2)
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    assert worker.stop() == 0


def test_term_does_not_wait_for_children_that_hang_at_boot(sqlite_shop: Shop) -> None:
    boots_slowly(sqlite_shop, 600)
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri", ready=False)
    wait_until(lambda: len(worker.forked()) == 2, "all children have been forked")
    assert worker.stop(5) == 0


def test_term_does_not_wait_for_a_spawner_that_still_imports(sqlite_shop: Shop) -> None:
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri")
    source = (sqlite_shop.folder / "shop.py").read_text()
    (sqlite_shop.folder / "shop.py").write_text(source + "import time\ntime.sleep(600)\n")
    before = worker.spawner()
    before.kill()
    wait_until(lambda: worker.spawners() not in ([], [before]), "the new spawner imports")
    assert worker.stop(5) == 0
