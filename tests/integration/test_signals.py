"""HUP, USR1, TTIN and TTOU: a running worker is changed and looked into without losing a task."""

from __future__ import annotations

import random
import signal
import time

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
    wait_until(lambda: len(worker.children()) == 2, "two children")
    assert any_shop.ran() == ["start go", "end go"]
    assert worker.stop() == 0


def test_a_broken_deploy_leaves_the_old_code_working_and_says_why(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "2", "-Q", "hipri")
    source = (any_shop.folder / "shop.py").read_text()
    (any_shop.folder / "shop.py").write_text(source + "\nraise ValueError('half a deploy')\n")
    worker.signal(signal.SIGHUP)
    worker.wait_log("the new code cannot be used")
    worker.wait_log("ValueError: half a deploy")
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


def test_hundreds_of_random_signals_lose_no_task_and_leave_no_process(shop: Shop) -> None:
    seed = random.randrange(2**32)
    (shop.folder / "seed.txt").write_text(str(seed))  # its folder is kept when the test fails
    rng = random.Random(seed)
    harmless = [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGTSTP, signal.SIGCONT]
    deadly = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
    results = [shop.task("add").delay(i) for i in range(400)]
    for _ in range(6):
        worker = shop.worker("-c", "2", "-Q", "hipri", "-l", "ERROR")
        for _ in range(40):
            worker.process.send_signal(rng.choice(harmless))
            time.sleep(rng.uniform(0, 0.01))
        worker.process.send_signal(signal.SIGCONT)
        worker.tree()  # so that nobody of it is overlooked below
        for number in rng.choices(deadly, k=4):
            if worker.process.poll() is None:
                worker.process.send_signal(number)
            time.sleep(rng.uniform(0, 0.05))
        assert worker.wait(20) in (0, 1)
        wait_until(lambda w=worker: not w.survivors(), "no process is left")
    last = shop.worker("-c", "2", "-Q", "hipri", "-l", "ERROR")
    assert [r.get(timeout=20) for r in results] == list(range(400))
    assert last.stop() == 0
    assert shop.dead() == []
    assert shop.in_flight() == 0


def test_a_broker_that_stays_away_ends_the_worker_with_69(sqlite_shop: Shop) -> None:
    source = (sqlite_shop.folder / "shop.py").read_text()
    (sqlite_shop.folder / "shop.py").write_text(source + "\napp.conf.broker_connection_max_retries = 1\n")
    away = "redis://127.0.0.1:1/0"  # nobody listens on port 1
    worker = sqlite_shop.worker("-c", "1", "-Q", "hipri", "-b", away, ready=False)
    assert worker.wait(20) == 69
    assert worker.log.count("attempt 1 of 1") == 1
    assert "Traceback" not in worker.log


def test_usr1_writes_the_stacks_of_master_and_children_with_what_they_run(sqlite_shop: Shop) -> None:
    worker = sqlite_shop.worker("-c", "2", "-Q", "hipri")
    result = sqlite_shop.task("gate").delay("go")
    wait_until(lambda: sqlite_shop.ran() == ["start go"], "the task runs")
    worker.signal(signal.SIGUSR1)
    for text in ("in wait_for", f"running: {result.id} shop.gate", "running: nothing", "consumer.py"):
        worker.wait_log(text)
    worker.signal(signal.SIGTERM)
    worker.wait_log("warm shutdown")
    worker.signal(signal.SIGUSR1)
    worker.wait_log("in wait_for", times=2)
    (sqlite_shop.folder / "go").touch()
    assert result.get(timeout=10) == "go"
    assert worker.wait() == 0
