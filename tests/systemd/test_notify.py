"""What systemd hears from real workers on a real NOTIFY_SOCKET."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from support import RedisServer, Shop, Worker, wait_until
from support.notify_socket import NotifySocket

HUP, QUIT, TERM = signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM
#: The consumer hangs, for good, as soon as a file `hang` lies beside this module; once, if the file says so. It makes a
#: file `hanging` then.
HANG = """
import time
from pathlib import Path
from qworker.worker.consumer import Consumer

turn = Consumer.turn

def hanging_turn(self):
    path = Path(__file__).parent / "hang"
    if path.exists():
        if path.read_text() == "once":
            path.unlink()
        path.with_name("hanging").touch()
        time.sleep(1000)
    turn(self)

Consumer.turn = hanging_turn
"""


def seconds(usec: str) -> float:
    return int(usec) / 1e6


def running(shop: Shop, name: str) -> None:
    """Have a task run that ends when the file `name` appears."""
    shop.task("gate").delay(name)
    wait_until(lambda: f"start {name}" in shop.ran(), "the task runs")


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_names_the_master_and_comes_once(shop: Shop, tmp_path: Path, abstract: bool) -> None:
    with NotifySocket(tmp_path, abstract=abstract) as systemd:
        worker = shop.worker(env=systemd.env())
        heard = systemd.wait("READY")
        assert heard.fields["MAINPID"] == str(worker.pid)
        assert heard.fields["STATUS"] == "running: 0/2 busy, 0 held"
        assert worker.stop() == 0
        systemd.wait("STATUS", "stopped")
        assert systemd.values("READY") == ["1"]


def test_ready_on_sqlite(shop_on: Callable[[str], Shop], tmp_path: Path, systemd: NotifySocket) -> None:
    shop_on(f"sqlite:///{tmp_path}/broker.db").worker(env=systemd.env())
    systemd.wait("READY")


def test_ready_waits_for_the_broker_and_asks_for_time_meanwhile(
    shop_on: Callable[[str], Shop], systemd: NotifySocket
) -> None:
    with RedisServer(password="s3cret") as server:
        server.stop()
        url = f"redis://:s3cret@127.0.0.1:{server.port}/0"
        worker = shop_on(url).worker("-c", "2", ready=False, env=systemd.env())
        unreachable = systemd.wait("STATUS", lambda text: "broker unreachable: " in text)
        assert unreachable.fields["STATUS"].startswith("starting: ")
        assert seconds(systemd.wait("EXTEND_TIMEOUT_USEC", str.isdigit).fields["EXTEND_TIMEOUT_USEC"]) >= 20
        assert systemd.values("READY") == []
        server.restart("--requirepass", "s3cret")
        systemd.wait("READY", limit_s=40)
        worker.stop()
    assert "s3cret" not in str(systemd.heard)


def test_a_start_that_fails_is_never_ready(shop: Shop, systemd: NotifySocket) -> None:
    shop.write("raise RuntimeError('broken')")
    worker = shop.worker(ready=False, env=systemd.env())
    assert worker.wait() == 3
    systemd.wait("STATUS", "stopped")
    assert systemd.values("READY") == []


def test_status_says_how_many_children_work_and_what_is_held(shop: Shop, systemd: NotifySocket) -> None:
    shop.worker("-c", "2", "-Q", "hipri", "--prefetch-multiplier", "3", env=systemd.env())
    systemd.wait("READY")
    for name in ("one", "two", "three"):
        shop.task("gate").delay(name)
    busy = systemd.wait("STATUS", "running: 2/2 busy, 1 held")
    for name in ("one", "two", "three"):
        (shop.folder / name).touch()
    systemd.wait("STATUS", "running: 0/2 busy, 0 held", after=systemd.heard.index(busy))


def test_status_says_that_the_broker_has_gone_and_is_back(
    shop_on: Callable[[str], Shop], systemd: NotifySocket
) -> None:
    with RedisServer() as server:
        worker = shop_on(server.url).worker("-c", "1", env=systemd.env(watchdog_s=1))
        systemd.wait("READY")
        server.stop()
        gone = systemd.wait("STATUS", lambda text: text.startswith("running: 0/1 busy, 0 held; broker unreachable: "))
        systemd.wait("WATCHDOG", after=systemd.heard.index(gone) + 4)  # a worker that reconnects is well
        server.restart()
        systemd.wait("STATUS", "running: 0/1 busy, 0 held", after=systemd.heard.index(gone), limit_s=40)
        worker.stop()


def test_status_is_sent_at_most_once_a_second(shop: Shop, systemd: NotifySocket) -> None:
    worker = shop.worker(env=systemd.env())
    systemd.wait("READY")
    begun, since = len(systemd.heard), time.monotonic()
    tasks = 0
    while time.monotonic() < since + 3 or tasks < 20:
        shop.task("add").delay(1).get(timeout=20)
        tasks += 1
    texts = [heard for heard in systemd.heard[begun:] if "STATUS" in heard.fields]
    took_s = time.monotonic() - since
    worker.stop()
    assert len(texts) <= took_s + 2  # one that was under way before, one that has just become due


def test_an_idle_worker_says_nothing(shop: Shop, systemd: NotifySocket) -> None:
    worker = shop.worker(env=systemd.env())
    systemd.wait("READY")
    begun = len(systemd.heard)
    time.sleep(3)  # nothing to wait for: it is the silence that is looked at
    assert [heard.fields for heard in systemd.heard[begun:]] == []
    worker.stop()


def test_a_reload_is_told_when_it_begins_and_when_the_new_code_works(shop: Shop, systemd: NotifySocket) -> None:
    worker = shop.worker(env=systemd.env())
    begun = len(systemd.heard) if systemd.wait("READY") else 0
    before = time.monotonic_ns() // 1000
    worker.signal(HUP)
    reloading = systemd.wait("RELOADING")
    assert before <= int(reloading.fields["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    ready = systemd.wait("READY", after=begun)
    assert systemd.heard.index(ready) > systemd.heard.index(reloading)
    assert ready.fields["STATUS"] == "running: 0/2 busy, 0 held"
    assert "the new children work" in worker.log


def test_a_broken_deploy_ends_its_reload_and_status_says_why(shop: Shop, systemd: NotifySocket) -> None:
    source = (shop.folder / "shop.py").read_text()
    worker = shop.worker(env=systemd.env())
    begun = len(systemd.heard) if systemd.wait("READY") else 0
    shop.write("raise RuntimeError('broken deploy')")
    worker.signal(HUP)
    systemd.wait("RELOADING")
    failed = systemd.wait("READY", after=begun)
    assert "the last reload failed, the old code runs: " in failed.fields["STATUS"]
    assert "broken deploy" in failed.fields["STATUS"]
    assert shop.task("add").delay(2).get(timeout=20) == 2
    shop.write(source)
    worker.signal(HUP)
    systemd.wait("RELOADING", after=systemd.heard.index(failed))
    mended = systemd.wait("READY", after=systemd.heard.index(failed) + 1)
    assert "failed" not in mended.fields["STATUS"]


def test_a_soft_stop_asks_for_the_time_that_it_may_take(shop: Shop, systemd: NotifySocket) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", "--soft-shutdown-timeout", "60", env=systemd.env())
    systemd.wait("READY")
    running(shop, "long")
    worker.signal(QUIT)
    stopping = systemd.wait("STOPPING")
    assert 60 <= seconds(stopping.fields["EXTEND_TIMEOUT_USEC"]) <= 90
    told = re.fullmatch(r"stopping \(soft\), (\d+) s left: 1/1 busy, 0 held", stopping.fields["STATUS"])
    assert told is not None, stopping
    assert 50 <= int(told[1]) <= 60
    systemd.wait("STATUS", lambda text: seconds_left(text) < int(told[1]) - 1)
    after = [heard.fields for heard in systemd.heard[systemd.heard.index(stopping) + 1 :]]
    assert not any("EXTEND_TIMEOUT_USEC" in fields for fields in after), "once told, the deadline stands"
    worker.signal(QUIT)  # a second one makes it cold
    cold = systemd.wait("STATUS", lambda text: text.startswith("stopping (cold)"))
    assert seconds(cold.fields["EXTEND_TIMEOUT_USEC"]) < 30
    assert worker.wait() == 1


def seconds_left(text: str) -> float:
    """What a status says of a soft stop; endless for any other."""
    found = re.match(r"stopping \(soft\), (\d+) s left", text)
    return int(found[1]) if found else math.inf


def test_a_warm_stop_asks_for_time_as_long_as_tasks_run(shop: Shop, systemd: NotifySocket) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", env=systemd.env())
    systemd.wait("READY")
    running(shop, "long")
    worker.signal(TERM)
    first = systemd.wait("STOPPING")
    assert first.fields["STATUS"] == "stopping (warm): 1/1 busy, 0 held"
    again = systemd.wait("EXTEND_TIMEOUT_USEC", str.isdigit, after=systemd.heard.index(first) + 1, limit_s=30)
    assert again.at - first.at < seconds(first.fields["EXTEND_TIMEOUT_USEC"])
    (shop.folder / "long").touch()
    assert worker.wait() == 0


def test_an_idle_stop_ends_without_asking_for_time(shop: Shop, systemd: NotifySocket) -> None:
    worker = shop.worker(env=systemd.env())
    systemd.wait("READY")
    assert worker.stop() == 0
    assert "EXTEND_TIMEOUT_USEC" not in systemd.wait("STOPPING").fields


def test_the_watchdog_hears_an_idle_and_a_busy_worker_in_time(shop: Shop, systemd: NotifySocket) -> None:
    watchdog_s = 7.0  # so that a busy machine may hold the worker up for some seconds
    worker = shop.worker("-c", "1", "-Q", "hipri", env=systemd.env(watchdog_s=watchdog_s))
    systemd.wait("READY")
    systemd.wait("WATCHDOG", after=len(systemd.heard))
    running(shop, "long")
    systemd.wait("WATCHDOG", after=len(systemd.heard))
    worker.signal(TERM)
    systemd.wait("STOPPING")
    systemd.wait("WATCHDOG", after=len(systemd.heard))
    pings = [heard.at for heard in systemd.heard if "WATCHDOG" in heard.fields]
    assert max(b - a for a, b in pairwise(pings)) < watchdog_s
    (shop.folder / "long").touch()
    assert worker.wait() == 0


def test_without_a_watchdog_or_with_one_for_another_process_there_are_no_pings(
    shop: Shop, systemd: NotifySocket
) -> None:
    shop.worker(env=systemd.env(watchdog_s=0.2) | {"WATCHDOG_PID": "1"})
    shop.worker(env=systemd.env())
    wait_until(lambda: len(systemd.values("READY")) == 2, "both are ready")
    for _ in range(2):
        shop.task("add").delay(1).get(timeout=20)
    time.sleep(0.5)  # nothing to wait for: the one whose watchdog is another's would have pinged five times
    assert systemd.values("WATCHDOG") == []


def test_a_consumer_that_hangs_is_not_vouched_for(shop: Shop, systemd: NotifySocket) -> None:
    worker = hangable(shop, systemd.env(watchdog_s=1))
    systemd.wait("WATCHDOG", after=len(systemd.heard))
    (shop.folder / "hang").touch()
    # Its last sign of life counts for ten seconds; then the master says nothing, though it turns.
    wait_until(lambda: time.monotonic() - last_ping(systemd) > 4, "the pings end", 60)
    systemd.wait("STATUS", lambda text: "the consumer does not turn" in text)
    assert worker.process.poll() is None


def hangable(shop: Shop, env: dict[str, str], deaf_s: float = 0) -> Worker:
    """A worker whose consumer can be made to hang; without `deaf_s` it does not notice it by itself."""
    (shop.folder / "sitecustomize.py").write_text(HANG)
    shop.write((shop.folder / "shop.py").read_text() + f"\napp.conf.worker_deaf_timeout = {deaf_s}\n")
    path = os.pathsep.join([str(shop.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return shop.worker("-c", "1", "-Q", "hipri", env={"PYTHONPATH": path} | env)


def test_an_image_that_replaces_a_hanging_one_goes_on_speaking(shop: Shop, systemd: NotifySocket) -> None:
    # A time-out that no other hold-up of a busy machine reaches: it is to be replaced for this hang alone.
    worker = hangable(shop, systemd.env(watchdog_s=2), deaf_s=5)
    ready = systemd.wait("READY")
    begun = systemd.heard.index(ready) + 1
    (shop.folder / "hang").write_text("once")
    again = systemd.wait("READY", after=begun, limit_s=40)
    assert again.fields["MAINPID"] == ready.fields["MAINPID"] == str(worker.pid)
    after = systemd.heard.index(again) + 1
    for _ in range(2):
        after = systemd.heard.index(systemd.wait("WATCHDOG", after=after)) + 1
    assert shop.task("add").delay(2).get(timeout=20) == 2
    assert systemd.values("STOPPING") == []


def last_ping(systemd: NotifySocket) -> float:
    return next(heard.at for heard in reversed(systemd.heard) if "WATCHDOG" in heard.fields)


def test_the_watchdogs_abort_shows_where_the_worker_hung(shop: Shop, systemd: NotifySocket) -> None:
    worker = hangable(shop, systemd.env(watchdog_s=60))
    (shop.folder / "hang").touch()
    shop.task("add").delay(1)
    wait_until((shop.folder / "hanging").exists, "the consumer hangs")
    worker.signal(signal.SIGABRT)
    assert worker.wait() == -signal.SIGABRT
    assert "hanging_turn" in worker.log


def test_nobody_but_the_master_can_speak_to_systemd(shop: Shop, systemd: NotifySocket) -> None:
    tell = "\n\n@app.task\ndef names():\n    import os, subprocess, sys\n    "
    tell += "code = 'import os; print(*os.environ)'\n    "
    tell += "inner = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split()\n    "
    tell += "return [n for n in [*os.environ, *inner] if n.startswith(('NOTIFY', 'WATCHDOG'))]\n"
    shop.write((shop.folder / "shop.py").read_text() + tell)
    worker = shop.worker("-c", "1", "-Q", "hipri", env=systemd.env(watchdog_s=60))
    asked = shop.app.send_task("shop.names", queue="hipri")
    assert asked.get(timeout=20) == []
    worker.signal(HUP)  # these children come from a spawner that was started by exec
    worker.wait_log("done, the old children have left")
    asked = shop.app.send_task("shop.names", queue="hipri")
    assert asked.get(timeout=20) == []


def test_a_worker_whose_notifications_nobody_takes_works(shop: Shop, tmp_path: Path) -> None:
    worker = shop.worker(env={"NOTIFY_SOCKET": str(tmp_path / "nobody.sock"), "WATCHDOG_USEC": "100000"})
    assert shop.task("add").delay(2).get(timeout=20) == 2
    assert worker.stop() == 0


def test_what_nobody_took_is_said_again(shop: Shop, tmp_path: Path) -> None:
    worker = shop.worker(env={"NOTIFY_SOCKET": str(tmp_path / "notify.sock")})
    with NotifySocket(tmp_path) as systemd:
        assert systemd.wait("READY", limit_s=40).fields["MAINPID"] == str(worker.pid)
