"""A Redis that answers and refuses: full, a replica, unable to save, busy, loading, locked, a cluster's.

Each state has one clear line in the log, costs next to no processor time, and ends without a message lost or repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis

from qworker.core.errors import TransportError

from support import RedisServer, Shop
from support.server_states import MAY_LOAD_SLOWLY, REFUSALS, full, loading
from support.waiting import wait_until
from support.worker import Worker

ShopOn = Callable[[str, str], Shop]

SAID = {
    "READONLY": "it is a replica; a failover may be under way",
    "MISCONF": "it cannot save to disk and takes no writes",
    "BUSY": "SCRIPT KILL ends that",
    "LOADING": "it is still loading its data",
}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(*MAY_LOAD_SLOWLY) as server:
        yield server


def busy_s(worker: Worker) -> float:
    """Processor time of the worker's processes."""
    times = [process.cpu_times() for process in worker.tree()]
    return sum(spent.user + spent.system for spent in times)


def stays_calm(worker: Worker, seconds: float = 4.0) -> None:
    """Watch it for a while: no spinning, no flood of lines, no end."""
    before, lines = busy_s(worker), worker.log.count("\n")
    time.sleep(seconds)
    assert worker.process.poll() is None, worker.log
    assert busy_s(worker) - before < 0.15 * seconds
    assert worker.log.count("\n") - lines <= 6 * seconds, worker.log


@pytest.mark.parametrize("refusal", ["READONLY", "MISCONF", "BUSY"])
def test_a_refusing_server_is_waited_for(shop_on: ShopOn, server: RedisServer, refusal: str) -> None:
    shop = shop_on(server.url, server.url)
    worker = shop.worker("-c", "2", "-Q", "hipri")
    result = shop.task("gate").delay("done")
    wait_until(lambda: shop.ran() == ["start done"], "the task runs")
    with REFUSALS[refusal](server):
        worker.wait_log(SAID[refusal])
        (shop.folder / "done").touch()
        stays_calm(worker)
        assert shop.ran() == ["start done", "end done"]
    assert result.get(timeout=20) == "done"
    shop.task("noted").delay("after")
    wait_until(lambda: "after" in shop.ran(), "the next task runs")
    wait_until(lambda: shop.in_flight() == 0, "everything is settled")
    assert shop.ran() == ["start done", "end done", "after"]
    assert worker.stop() == 0


def test_a_server_that_loads_its_data_is_waited_for(shop_on: ShopOn, server: RedisServer) -> None:
    shop = shop_on(server.url, server.url)
    worker = shop.worker("-c", "1", "-Q", "hipri", env={"TEST_LEASE": "60"})
    result = shop.task("gate").delay("done")
    wait_until(lambda: shop.ran() == ["start done"], "the task runs")
    with loading(server):
        worker.wait_log(SAID["LOADING"])
        (shop.folder / "done").touch()
        stays_calm(worker, 2.0)
    assert result.get(timeout=20) == "done"
    wait_until(lambda: shop.in_flight() == 0, "everything is settled")
    assert shop.ran() == ["start done", "end done"]
    assert worker.stop() == 0


def test_a_full_server_takes_no_task_and_its_queues_are_drained(shop_on: ShopOn, server: RedisServer) -> None:
    """Acks and claims need no memory that they do not free; results do, and wait for ten seconds at most."""
    shop = shop_on(server.url, server.url)
    for number in range(50):
        shop.task("noted").delay(str(number))
    with full(server):
        worker = shop.worker("-c", "2", "-Q", "hipri")
        with pytest.raises(TransportError, match="its memory is full; raise maxmemory or drain the queues"):
            shop.task("noted").delay("one too many")
        wait_until(lambda: len(shop.ran()) == 50, "the queue is drained", 30)
        wait_until(lambda: shop.in_flight() == 0, "everything is settled", 30)
        assert "its memory is full" in worker.log
        stays_calm(worker, 2.0)
    shop.task("noted").delay("after")
    wait_until(lambda: "after" in shop.ran(), "the next task runs")
    assert sorted(shop.ran()) == sorted([*map(str, range(50)), "after"])
    assert worker.stop() == 0


def test_a_server_that_accepts_the_worker_and_refuses_its_claims_is_not_asked_without_pause(
    shop_on: ShopOn, server: RedisServer
) -> None:
    with server.client() as behind:
        rights = {"enabled": True, "passwords": ["+pass"], "keys": ["*"], "channels": ["*"]}
        behind.acl_setuser("shop", **rights, commands=["+@all"])
        url = server.url.replace("//", "//shop:pass@")
        shop = shop_on(url, url)
        worker = shop.worker("-c", "1", "-Q", "hipri")
        behind.acl_setuser("shop", **rights, commands=["+@all", "-lrange"])
        shop.task("noted").delay("later")
        worker.wait_log("extend its ACL", times=3)
        stays_calm(worker)
        assert shop.ran() == []
        behind.acl_setuser("shop", **rights, commands=["+@all"])
    wait_until(lambda: shop.ran() == ["later"], "the task runs", 30)
    assert worker.stop() == 0


def test_scripts_that_the_server_forgets_are_loaded_again(shop_on: ShopOn, server: RedisServer) -> None:
    shop = shop_on(server.url, server.url)
    worker = shop.worker("-c", "2", "-Q", "hipri")
    with server.client() as behind:
        for number in range(60):
            shop.task("noted").delay(str(number))
            behind.script_flush()
            time.sleep(0.01)
    wait_until(lambda: len(shop.ran()) == 60, "every task has run")
    wait_until(lambda: shop.in_flight() == 0, "everything is settled")
    assert sorted(shop.ran(), key=int) == [str(number) for number in range(60)]
    assert "reconnecting" not in worker.log
    assert worker.stop() == 0


def test_a_node_of_a_cluster_is_refused_at_the_start(shop_on: ShopOn) -> None:
    with RedisServer("--cluster-enabled", "yes") as node:
        worker = shop_on(node.url, "disabled://").worker(ready=False)
        assert worker.wait() == 4
    assert "Redis Cluster, which is not supported; use a single server or Sentinel" in worker.log


@pytest.mark.parametrize(
    ("login", "said"),
    [("", "it wants a password; write it into the URL"), (":wr0ng@", "the password in the URL is wrong; correct it")],
    ids=["none", "wrong"],
)
def test_a_worker_without_the_right_password_is_refused_at_the_start(
    shop_on: ShopOn, server: RedisServer, login: str, said: str
) -> None:
    with server.client() as behind:
        behind.config_set("requirepass", "right")
    worker = shop_on(server.url.replace("//", f"//{login}"), "disabled://").worker(ready=False)
    assert worker.wait() == 4
    assert said in worker.log
    assert "wr0ng" not in worker.log


def test_a_password_that_is_changed_under_a_worker_does_not_end_its_tasks(shop_on: ShopOn, server: RedisServer) -> None:
    with server.client() as behind:
        behind.config_set("requirepass", "right")
    url = server.url.replace("//", "//:right@")
    shop = shop_on(url, url)
    worker = shop.worker("-c", "1", "-Q", "hipri")
    shop.task("gate").delay("done")
    wait_until(lambda: shop.ran() == ["start done"], "the task runs")
    with closing(redis.Redis(port=server.port, password="right")) as behind:
        behind.config_set("requirepass", "other")
        behind.client_kill_filter(_type="normal", skipme=True)
        behind.client_kill_filter(_type="pubsub", skipme=True)
        worker.wait_log("the password in the URL is wrong; correct it")
        (shop.folder / "done").touch()
        stays_calm(worker)
        behind.config_set("requirepass", "right")
    wait_until(lambda: shop.in_flight() == 0, "everything is settled", 20)
    assert shop.ran() == ["start done", "end done"]
    assert worker.stop() == 0


def test_the_worker_says_once_what_the_settings_of_its_broker_put_at_risk(shop_on: ShopOn, tmp_path: Path) -> None:
    with RedisServer("--maxmemory-policy", "allkeys-lru") as server:
        shop = shop_on(server.url, server.url)
        worker = shop.worker("-c", "1", "-Q", "hipri")
        worker.wait_log("set maxmemory-policy noeviction")
        with server.client() as behind:
            behind.client_kill_filter(_type="normal", skipme=True)
        worker.wait_log("reconnecting")
        shop.task("noted").delay("after")
        wait_until(lambda: shop.ran() == ["after"], "the task runs")
        assert worker.stop() == 0
    assert worker.log.count("set maxmemory-policy noeviction") == 1
    assert worker.log.count("set appendonly yes") == 1
    assert psutil.pid_exists(worker.pid) is False
