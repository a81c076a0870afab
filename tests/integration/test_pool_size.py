"""TTIN and TTOU at awkward moments: the pool ends up with exactly as many children as it was told."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from support import Shop, Worker, wait_until

#: Children of such an application boot for as long as there is a file `hold`.
HELD_AT_BOOT = """
def _boot():
    while (_FOLDER / "hold").exists():
        time.sleep(0.01)
os.register_at_fork(after_in_child=_boot)
"""


def can_be_held(shop: Shop) -> None:
    source = (shop.folder / "shop.py").read_text()
    (shop.folder / "shop.py").write_text(source + HELD_AT_BOOT)


def hold(shop: Shop) -> None:
    (shop.folder / "hold").touch()


def let_go(shop: Shop) -> None:
    (shop.folder / "hold").unlink()


def wait_size(worker: Worker, size: int) -> None:
    """Wait until there are so many children, booting ones included, and have been for half a second without a break."""
    since = time.monotonic()

    def is_settled() -> bool:
        nonlocal since
        if len(worker.forked()) != size:
            since = time.monotonic()
        return time.monotonic() - since >= 0.5

    wait_until(is_settled, f"{size} children")


def is_pending(worker: Worker, number: signal.Signals) -> bool:
    """Whether the process has not been interrupted by this signal yet: another one of the kind would be lost."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    shared = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(shared.split()[1], 16) & 1 << (number - 1))


def test_ttou_while_all_children_boot(sqlite_shop: Shop) -> None:
    can_be_held(sqlite_shop)
    hold(sqlite_shop)
    worker = sqlite_shop.worker("-c", "3", "-Q", "hipri", ready=False)
    wait_until(lambda: len(worker.forked()) == 3, "all children have been forked")
    worker.signal(signal.SIGTTOU)
    worker.wait_log("shrinks to 2")
    let_go(sqlite_shop)
    wait_size(worker, 2)
    worker.wait_ready()
    assert sqlite_shop.task("add").delay(1).get(timeout=10) == 1
    assert worker.stop() == 0


@pytest.mark.parametrize("size", [2, 3])
def test_ttou_while_one_is_being_recycled(sqlite_shop: Shop, size: int) -> None:
    can_be_held(sqlite_shop)
    worker = sqlite_shop.worker("-c", str(size), "-Q", "hipri", "--max-tasks-per-child", "2")
    hold(sqlite_shop)
    assert [sqlite_shop.task("add").delay(i).get(timeout=10) for i in range(size + 1)] == list(range(size + 1))
    wait_until(lambda: len(worker.forked()) == size + 1, "a successor boots")
    worker.signal(signal.SIGTTOU)
    worker.wait_log(f"shrinks to {size - 1}")
    let_go(sqlite_shop)
    wait_size(worker, size - 1)
    assert [sqlite_shop.task("add").delay(i).get(timeout=10) for i in range(6)] == list(range(6))
    assert worker.stop() == 0


def test_ttou_and_ttin_in_quick_succession_under_load(any_shop: Shop) -> None:
    limits = ("--max-tasks-per-child", "5")
    worker = any_shop.worker("-c", "4", "-Q", "hipri", "-l", "WARNING", *limits)
    results = [any_shop.task("add").delay(i) for i in range(400)]
    for number in (signal.SIGTTOU,) * 3 + (signal.SIGTTIN,) * 4 + (signal.SIGTTOU,) * 3:
        worker.signal(number)
        wait_until(lambda n=number: not is_pending(worker, n), "it is noted")  # type: ignore[misc]
    assert [r.get(timeout=30) for r in results] == list(range(400))
    wait_size(worker, 2)
    assert worker.stop() == 0


def test_ttou_during_a_reload(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "3", "-Q", "hipri")
    can_be_held(any_shop)
    hold(any_shop)
    worker.signal(signal.SIGHUP)
    wait_until(lambda: len(worker.forked()) == 6, "old and new children")
    worker.signal(signal.SIGTTOU)
    worker.wait_log("shrinks to 2")
    let_go(any_shop)
    worker.wait_log("reload: done")
    wait_size(worker, 2)
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    assert worker.stop() == 0


def test_term_does_not_wait_for_children_that_hang_at_boot(sqlite_shop: Shop) -> None:
    can_be_held(sqlite_shop)
    hold(sqlite_shop)
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
