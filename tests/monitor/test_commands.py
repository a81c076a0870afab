"""`qworker health` and `qworker status` beside real workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from support import RedisServer, Shop, wait_until
from support.asking import free_port, get, qworker, socket_of


def test_health_says_yes_while_a_worker_lives(shop: Shop, tmp_path: Path) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", "-n", "yes@%h")
    assert qworker(tmp_path, "health").returncode == 0
    assert qworker(tmp_path, "health", "--ready").stdout == "ok\n"
    assert subprocess.call(f"'{sys.executable}' -m qworker health -n yes@%h >/dev/full", shell=True) == 0
    worker.stop()
    ended = qworker(tmp_path, "health", "-n", "yes@%h")
    assert ended.returncode == 1
    assert "no worker that is called yes@%h runs here" in ended.stderr


def test_health_tells_life_from_readiness(redis_shop: Shop, redis_server: RedisServer, tmp_path: Path) -> None:
    redis_shop.worker()
    redis_server.stop()
    try:
        wait_until(lambda: get(socket_of(), "/readyz")[0] == 503, "not ready")
        assert qworker(tmp_path, "health").returncode == 0
        ended = qworker(tmp_path, "health", "--ready")
        assert (ended.returncode, ended.stdout) == (1, "the broker is out of reach\n")
    finally:
        redis_server.start()


def test_one_of_several_workers_has_to_be_named(shop: Shop, tmp_path: Path) -> None:
    for name in ("left@here", "right@here"):
        shop.worker("-c", "1", "-Q", "hipri", "-n", name)
    ended = qworker(tmp_path, "health")
    assert ended.returncode == 1
    assert "left@here, right@here" in ended.stderr
    assert qworker(tmp_path, "health", "-n", "left@here").returncode == 0
    assert qworker(tmp_path, "health", "-n", "right").returncode == 0
    assert qworker(tmp_path, "health", env={"QWORKER_HOSTNAME": "left@here"}).returncode == 0
    # Beside those of other users, whose tests may run at the same time.
    shown = [json.loads(line)["node"] for line in qworker(tmp_path, "status", "--json").stdout.splitlines()]
    assert shown[:2] == ["left@here", "right@here"]


def test_of_two_workers_of_one_name_health_asks_the_first(shop: Shop, tmp_path: Path) -> None:
    first = shop.worker("-c", "1", "-Q", "hipri", "-n", "twin@here")
    second = shop.worker("-c", "1", "-Q", "hipri", "-n", "twin@here")
    assert qworker(tmp_path, "health").returncode == 0
    assert qworker(tmp_path, "health", "-n", "twin@here").returncode == 0
    first.signal(signal.SIGSTOP)
    try:
        assert qworker(tmp_path, "health", "-n", "twin@here").returncode == 1
        assert qworker(tmp_path, "health", "-n", f"twin@here-{second.pid}").returncode == 0
    finally:
        first.signal(signal.SIGCONT)
    assert qworker(tmp_path, "status", "-n", "twin@here").stdout.count("phase:") == 2


def test_the_commands_find_a_worker_by_what_its_http_says(shop: Shop, runtime_dir: Path, tmp_path: Path) -> None:
    env = {"QWORKER_HTTP": f"unix:{runtime_dir}/own.sock"}
    worker = shop.worker(env=env)
    assert qworker(tmp_path, "health", env=env).returncode == 0
    assert "0 of 2 busy" in qworker(tmp_path, "status", env=env).stdout
    worker.stop()
    env = {"QWORKER_HTTP": f"0.0.0.0:{free_port()}", "QWORKER_HTTP_TOKEN": "secret"}
    shop.worker(env=env)
    for found in (runtime_dir / "qworker").iterdir():
        found.unlink()
    assert qworker(tmp_path, "health", env=env).returncode == 0
    assert json.loads(qworker(tmp_path, "status", "--json", env=env).stdout)["phase"] == "running"


def test_health_of_a_stopped_process_is_bad(shop: Shop, tmp_path: Path) -> None:
    worker = shop.worker()
    worker.signal(signal.SIGSTOP)
    try:
        ended = qworker(tmp_path, "health")
    finally:
        worker.signal(signal.SIGCONT)
    assert ended.returncode == 1
    assert "does not answer" in ended.stderr


def test_status_shows_those_who_answer_beside_one_who_does_not(shop: Shop, tmp_path: Path) -> None:
    for name in ("left@here", "right@here"):
        worker = shop.worker("-c", "1", "-Q", "hipri", "-n", name)
        if name == "left@here":
            worker.signal(signal.SIGSTOP)
            stopped = worker
    try:
        ended = qworker(tmp_path, "status")
    finally:
        stopped.signal(signal.SIGCONT)
    assert ended.returncode == 1
    assert "right@here (pid" in ended.stdout
    assert "left@here.sock does not answer" in ended.stderr


def test_status_shows_who_runs_what(shop: Shop, tmp_path: Path) -> None:
    shop.worker("-c", "2", "-Q", "hipri", "-n", "desk@here")
    called = shop.task("gate").delay("open")
    wait_until(lambda: shop.ran() == ["start open"], "the task runs")
    ended = qworker(tmp_path, "status", "-n", "desk@here")
    assert ended.returncode == 0
    assert "desk@here" in ended.stdout
    assert "1 of 2 busy" in ended.stdout
    assert f"shop.gate[{called.id}]" in ended.stdout
    (shop.folder / "open").touch()


def test_status_without_a_worker_says_where_it_has_looked(runtime_dir: Path, tmp_path: Path) -> None:
    ended = qworker(tmp_path, "status", "-n", "nobody@nowhere")
    assert ended.returncode == 1
    assert str(runtime_dir) in ended.stderr


def test_health_loads_neither_the_command_line_nor_an_application(shop: Shop, tmp_path: Path) -> None:
    shop.worker()
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "qworker", "health"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "qworker.monitor.client" in loaded
    assert not loaded & {"click", "qworker.cli.root", "qworker.tasks", "http.client", "json", "logging", "billiard"}


def test_services_with_folders_of_their_own_are_all_seen(shop: Shop, runtime_dir: Path, tmp_path: Path) -> None:
    for name in ("left", "right"):
        own = runtime_dir / "qworker" / f"qworker-{name}"
        own.mkdir(parents=True)
        shop.worker("-c", "1", "-Q", "hipri", "-n", f"{name}@here", env={"RUNTIME_DIRECTORY": str(own)})
        assert (own / f"{name}@here.sock").exists()
    assert all(f"{name}@here (pid" in qworker(tmp_path, "status").stdout for name in ("left", "right"))
    assert "left@here, right@here" in qworker(tmp_path, "health").stderr
    assert qworker(tmp_path, "health", "-n", "right@here").returncode == 0
