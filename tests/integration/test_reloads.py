"""HUP with code whose children cannot start: the old children go on, for good, and the next deploy is accepted."""

from __future__ import annotations

import signal

import pytest

from support import Shop, Worker, wait_until

#: Children of such an application die while they boot, each after a moment of its own.
DIE_AT_BOOT = """
import os, time
def _die():
    time.sleep(os.getpid() % 4 * {step_s})
    os._exit(9)
os.register_at_fork(after_in_child=_die)
"""
UNDONE = "what was left of the new children has gone"


def deploy(shop: Shop, worker: Worker, addition: str = "", **changes: str) -> None:
    """Change the application's source and have it loaded."""
    source = (shop.folder / "original.py").read_text()
    for old, new in changes.items():
        assert old in source
        source = source.replace(old, new)
    (shop.folder / "shop.py").write_text(source + addition)
    worker.signal(signal.SIGHUP)


@pytest.fixture
def any_shop(any_shop: Shop) -> Shop:
    (any_shop.folder / "original.py").write_text((any_shop.folder / "shop.py").read_text())
    return any_shop


@pytest.mark.parametrize("size", [4, 6])
@pytest.mark.parametrize("step_s", [0.0, 0.5])
def test_code_whose_children_die_at_boot_is_given_up_once_and_the_old_children_go_on(
    any_shop: Shop, size: int, step_s: float
) -> None:
    worker = any_shop.worker("-c", str(size), "-Q", "hipri")
    old = {child.pid for child in worker.children()}
    long = any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "a long task runs")
    deploy(any_shop, worker, DIE_AT_BOOT.format(step_s=step_s))
    wait_until(
        lambda: any_shop.task("add").delay(1).get(timeout=20) == 1 and UNDONE in worker.log, "it is given up", 40
    )
    assert {child.pid for child in worker.children()} == old
    assert worker.log.count("reload: new children cannot start: child") == 1
    assert "exit code 9" in worker.log
    deploy(any_shop, worker, **{"return x + y": "return x + y + 1000"})
    wait_until(lambda: any_shop.task("add").delay(1).get(timeout=10) == 1001, "the repaired code runs")
    (any_shop.folder / "go").touch()
    assert long.get(timeout=10) == "go"
    worker.wait_log("reload: done")
    wait_until(lambda: len(worker.children()) == size, "as many children as before")
    assert old.isdisjoint(child.pid for child in worker.children())
    assert any_shop.ran() == ["start go", "end go"]
    assert worker.stop() == 0


def test_new_children_that_hang_at_boot_are_ended_by_the_next_reload(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    deploy(any_shop, worker, "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(600))\n")
    worker.wait_log("importing the application anew")
    wait_until(lambda: len(worker.forked()) == 4, "two children of each spawner")
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    deploy(any_shop, worker, **{"return x + y": "return x + y + 1000"})
    wait_until(lambda: any_shop.task("add").delay(1).get(timeout=10) == 1001, "the repaired code runs")
    wait_until(lambda: (len(worker.spawners()), len(worker.forked())) == (1, 2), "nothing of the others is left")
    assert worker.stop() == 0


def test_a_hup_while_another_one_is_carried_out_is_not_forgotten(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    deploy(any_shop, worker, "note('imports')\nwait_for('go on')\n")
    wait_until(lambda: any_shop.ran() == ["imports"], "the application is being imported anew")
    deploy(any_shop, worker, **{"return x + y": "return x + y + 1000"})
    worker.wait_log("another one follows it")
    (any_shop.folder / "go on").touch()
    wait_until(lambda: any_shop.task("add").delay(1).get(timeout=10) == 1001, "the newest code runs")
    wait_until(lambda: (len(worker.spawners()), len(worker.forked())) == (1, 2), "one spawner, two children")
    assert worker.stop() == 0


def test_a_hup_is_obeyed_although_a_long_task_still_runs_in_code_of_long_ago(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    long = any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "a long task runs")
    for number in (1000, 20000, 300000):  # sources of the same second and the same size share their bytecode file
        deploy(any_shop, worker, **{"return x + y": f"return x + y + {number}"})
        wait_until(lambda n=number: any_shop.task("add").delay(1).get(timeout=10) == n + 1, "newer code runs")
    (any_shop.folder / "go").touch()
    assert long.get(timeout=10) == "go"
    wait_until(lambda: (len(worker.spawners()), len(worker.forked())) == (1, 2), "one spawner, two children")
    assert any_shop.ran() == ["start go", "end go"]
    assert worker.stop() == 0


def test_a_spawner_that_dies_before_its_children_are_ready_gives_way_to_the_old_one(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    old = {child.pid for child in worker.children()}
    suicide = "import os\nos.register_at_fork(before=lambda: os.kill(os.getpid(), 9))\n"
    deploy(any_shop, worker, suicide)
    worker.wait_log("the process that forks the new children has died; the old children go on")
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    wait_until(lambda: {child.pid for child in worker.children()} == old, "the old children")
    wait_until(lambda: len(worker.spawners()) == 1, "one spawner")
    assert worker.stop() == 0
