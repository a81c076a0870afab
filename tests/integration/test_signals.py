"""HUP, USR1, TTIN and TTOU: a running worker is changed and looked into without losing a task."""

from __future__ import annotations

import signal

from support import Shop, wait_until


def test_hup_brings_new_code_while_the_old_finishes_what_it_runs(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    long = any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the long task runs")
    source = (any_shop.folder / "shop.py").read_text()
    (any_shop.folder / "shop.py").write_text(source.replace("return x + y", "return x + y + 1000"))
    worker.signal(signal.SIGHUP)
    wait_until(lambda: any_shop.task("add").delay(1).get(timeout=10) == 1001, "new code runs")
    (any_shop.folder / "go").touch()
    assert long.get(timeout=10) == "go"
    worker.wait_log("reload: done")
    assert len(worker.children()) == 2
    assert any_shop.ran() == ["start go", "end go"]
    assert worker.stop() == 0


def test_a_broken_deploy_leaves_the_old_code_working_and_says_why(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    source = (any_shop.folder / "shop.py").read_text()
    (any_shop.folder / "shop.py").write_text(source + "\nraise ValueError('half a deploy')\n")
    worker.signal(signal.SIGHUP)
    worker.wait_log("the new code cannot be used")
    assert "half a deploy" in worker.log
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    (any_shop.folder / "shop.py").write_text(source.replace("return x + y", "return x + y + 1000"))
    worker.signal(signal.SIGHUP)
    wait_until(lambda: any_shop.task("add").delay(1).get(timeout=10) == 1001, "the repaired deploy runs")
    assert worker.stop() == 0


def test_ttin_and_ttou_change_the_number_of_children(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.task("gate").delay("go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the only child is busy")
    worker.signal(signal.SIGTTIN)
    wait_until(lambda: len(worker.children()) == 2, "two children")
    assert any_shop.task("add").delay(1).get(timeout=10) == 1
    worker.signal(signal.SIGTTOU)
    wait_until(lambda: len(worker.children()) == 1, "one child")
    worker.signal(signal.SIGTTOU)
    worker.wait_log("no fewer")
    assert any_shop.ran() == ["start go"], "the idle one has left, not the busy one"
    (any_shop.folder / "go").touch()
    wait_until(lambda: any_shop.ran() == ["start go", "end go"], "the task ends")
    assert worker.stop() == 0


def test_autoscale_grows_while_work_waits(any_shop: Shop) -> None:
    worker = any_shop.worker("-Q", "hipri", "--autoscale", "3,1")
    assert len(worker.children()) == 1
    tasks = [any_shop.task("gate").delay(f"go{i}") for i in range(3)]
    wait_until(lambda: len(any_shop.ran()) == 3, "three tasks run at once")
    for i in range(3):
        (any_shop.folder / f"go{i}").touch()
    assert [task.get(timeout=10) for task in tasks] == ["go0", "go1", "go2"]
    assert worker.stop() == 0


def test_usr1_writes_the_stacks_of_master_and_children_with_what_they_run(sqlite_shop: Shop) -> None:
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri")
    result = sqlite_shop.task("gate").delay("go")
    wait_until(lambda: sqlite_shop.ran() == ["start go"], "the task runs")
    worker.signal(signal.SIGUSR1)
    worker.wait_log("in wait_for")
    assert f"running: {result.id} shop.gate" in worker.log
    assert "running: nothing" in worker.log
    assert "consumer.py" in worker.log
    (sqlite_shop.folder / "go").touch()
    assert result.get(timeout=10) == "go"
    assert worker.stop() == 0
