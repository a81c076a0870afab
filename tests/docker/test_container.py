"""The image's entrypoint as process 1 of a container: read-only root, dropped user, TERM, orphans, secrets in files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from qworker import App

from support import Shop, wait_until
from support.containers import DOCKERFILE, Container, stages

Start = Callable[..., Container]

LAST = stages(DOCKERFILE.read_text("utf-8"))[-1]


@pytest.mark.parametrize("user", ["10001:0", "1000720000:0", "4711:4711"])
def test_it_runs_on_a_read_only_root_as_whatever_user(worker: Start, shop: Shop, user: str) -> None:
    container = worker(user=user).wait_ready()
    assert shop.task("add").delay(20, 22).get(timeout=20) == 42
    assert {process.uids().real for process in [container.first, *container.children()]} == {int(user.split(":")[0])}
    assert "Read-only file system" in container.run("touch", "/etc/anything").stderr
    container.stop()
    assert container.wait() == 0


def test_the_worker_is_process_1_and_no_shell_is_left(worker: Start) -> None:
    container = worker().wait_ready()
    titles = [container.title(p) for p in [container.first, *container.first.children(recursive=True)]]
    assert [title for title in titles if not title.startswith("qworker: ")] == []
    assert len(titles) == 4  # master, spawner, two children


def test_variables_and_arguments_are_options(worker: Start) -> None:
    container = worker("-c", "1", env={"QWORKER_LOG_FORMAT": "logfmt", "QWORKER_HOSTNAME": "node@%h"}).wait_ready()
    assert len(container.children()) == 1
    assert "node@" in container.log
    assert "level=info" in container.log.lower()


def test_term_gives_running_tasks_their_time_and_ends_with_0(worker: Start, shop: Shop) -> None:
    container = worker().wait_ready()
    running = shop.task("gate").delay("go")
    wait_until(lambda: shop.ran() == ["start go"], "the task runs")
    container.stop()
    wait_until(lambda: "master soft" in container.title(), "TERM began the soft shutdown")
    (shop.folder / "go").touch()
    assert container.wait() == 0
    assert running.get(timeout=20) == "go"


def test_without_the_image_s_variables_term_still_means_quit(worker: Start, shop: Shop) -> None:
    container = worker(without=["REMAP_SIGTERM", "QWORKER_SOFT_SHUTDOWN_TIMEOUT"]).wait_ready()
    container.stop()
    assert container.wait() == 0
    assert "soft shutdown: running tasks have 25 s" in container.log


def test_an_env_that_cannot_hold_signals_back_is_done_without(worker: Start, shop: Shop) -> None:
    other = shop.folder / "bin" / "env"
    other.parent.mkdir()
    other.write_text(
        '#!/bin/sh\n[ "${1#--}" = "$1" ] && exec /usr/bin/env "$@"\necho "unknown option $1" >&2\nexit 1\n'
    )
    other.chmod(0o755)
    container = worker(env={"PATH": "/app/bin:/opt/qworker/bin:/usr/local/bin:/usr/bin:/bin"}).wait_ready()
    assert "unknown option" not in container.log
    container.stop()
    assert container.wait() == 0


def test_a_task_that_takes_too_long_is_cut_given_back_and_the_code_is_1(worker: Start, shop: Shop) -> None:
    container = worker(env={"QWORKER_SOFT_SHUTDOWN_TIMEOUT": "0.5"}).wait_ready()
    shop.task("careful").delay("never")
    wait_until(lambda: shop.ran() == ["start never"], "the task runs")
    container.stop()
    assert container.wait() == 1
    assert shop.ran() == ["start never", "finally never"]
    assert shop.depth() == 1


def test_term_is_heard_while_python_starts(worker: Start) -> None:
    """Process 1 has no default action for a signal: what comes before its handlers stand would be lost."""
    for delay_s in (0.0, 0.01, 0.03, 0.06, 0.12):
        container = worker("-q")
        starting = wait_until(lambda box=container: program_of(box), "the entrypoint has become qworker")
        time.sleep(delay_s)
        starting.terminate()
        assert container.wait() == 0, delay_s


def program_of(container: Container) -> psutil.Process | None:
    """Process 1 as soon as it is the program, and neither the entrypoint nor one that prepares the container."""
    with suppress(psutil.NoSuchProcess, ValueError):
        words = container.first.cmdline()
        if words[1:2] == ["/opt/qworker/bin/qworker"] or words[1:3] == ["-m", "qworker"]:
            return container.first
    return None


def test_orphans_are_reaped(worker: Start, shop: Shop) -> None:
    container = worker().wait_ready()
    orphans = [shop.task("orphan").delay().get(timeout=20) for _ in range(3)]
    assert len(orphans) == 3
    wait_until(lambda: len(container.first.children(recursive=True)) == 3, "nobody but spawner and children is left")
    zombies = [p for p in container.first.children() if p.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []


def test_the_broker_may_come_later(worker: Start, shop: Shop) -> None:
    """Nothing waits for it before the worker is there: not the entrypoint, not the health."""
    container = worker(env={"QWORKER_BROKER": "redis://127.0.0.1:1/0"})
    wait_until(lambda: "cannot be reached" in container.log, "it says what it waits for")
    assert container.process.poll() is None
    container.stop()
    assert container.wait() == 0


def test_secrets_are_read_from_files(worker: Start, shop: Shop, tmp_path: Path) -> None:
    (shop.folder / "broker").write_text(f"{shop.broker.removesuffix('/0')}/3\n")
    worker(env={"QWORKER_BROKER_FILE": "/app/broker"}).wait_ready()
    elsewhere = App("elsewhere", broker=f"{shop.broker.removesuffix('/0')}/3")
    elsewhere.send_task("shop.noted", args=["from database 3"], queue="hipri")
    wait_until(lambda: shop.ran() == ["from database 3"], "the worker takes from the broker that the file names")
    elsewhere.close()


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"QWORKER_BROKER_FILE": "/app/nothing"}, "QWORKER_BROKER_FILE=/app/nothing cannot be read"),
        ({"QWORKER_BROKER_FILE": "/app/urls.json", "QWORKER_BROKER": "redis://x"}, "both QWORKER_BROKER and"),
        ({"QWORKER_RESULT_BACKEND_FILE": "/dev/null"}, "QWORKER_RESULT_BACKEND_FILE=/dev/null is empty"),
    ],
)
def test_a_secret_that_is_not_there_is_a_refused_configuration(
    worker: Start, env: dict[str, str], complaint: str
) -> None:
    container = worker(env=env)
    assert container.wait() == 4
    assert complaint in container.log


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["--version"], 0, "qworker "),
        (["sh", "-c", "echo $(id -u) in $PWD"], 0, "10001 in /app"),
        (["python3", "-c", "print('here')"], 0, "here"),
        (["/bin/echo", "by path"], 0, "by path"),
        (["-c", "0"], 2, "a worker without children"),
        (["queus"], 2, "did you mean 'queues'?"),
        ([], 2, "no application"),
        (["-A", "nothing_here"], 3, "nothing_here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_follows_the_image_is_a_command(run: Start, command: list[str], code: int, said: str) -> None:
    container = run(*command)
    assert container.wait() == code
    assert said in container.log


def test_the_health_check_of_the_image_answers_by_the_socket_below_tmp(worker: Start) -> None:
    _, command = LAST.last("HEALTHCHECK").text.split("CMD ")
    check = json.loads(command)
    container = worker().wait_ready()
    assert container.run(*check).returncode == 0
    wait_until(lambda: container.run(*check, "--ready").returncode == 0, "it is ready")
    container.first.suspend()
    assert container.run(*check).returncode == 1
    container.first.resume()
    wait_until(lambda: container.run(*check).returncode == 0, "it is well again")


def test_without_its_broker_the_container_is_healthy_and_not_ready(worker: Start) -> None:
    container = worker(env={"QWORKER_BROKER": "redis://127.0.0.1:1/0"})
    wait_until(lambda: "cannot be reached" in container.log, "it says what it waits for")
    assert container.run("qworker", "health").returncode == 0
    assert container.run("qworker", "health", "--ready").returncode == 1
