"""The shipped unit under a real systemd, PID 1 of its own namespaces: `tox -e systemd`, as root.

Asked for by name only; where no systemd can be started, these tests fail and say why.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from qworker.systemd import shipped

from support import RedisServer, wait_until
from support.booted import ENVIRONMENT, Booted, why_not

pytestmark = [pytest.mark.booted, pytest.mark.timeout(180)]

UNIT = "qworker@shop"
APP = """
import os, time
from pathlib import Path
from qworker import App

STATE = "/var/lib/qworker/shop"
app = App("shop", broker=f"sqlite:///{STATE}/broker.db", backend=f"sqlite:///{STATE}/results.db")

@app.task
def gate(name):
    Path(STATE, f"{name}.begun").write_text(str(os.getpid()))
    while not Path(STATE, name).exists():
        time.sleep(0.01)
    Path(STATE, f"{name}.ended").touch()

@app.task
def seen():
    def can_write(place):
        try:
            Path(place, "probe").touch()
        except OSError:
            return False
        return True
    names = [name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))]
    return {"uid": os.getuid(), "names": names, "etc": can_write("/etc"), "state": can_write(STATE)}

@app.task
def eat(mib):
    data = bytearray(mib * 1024 * 1024)
    for at in range(0, len(data), 4096):
        data[at] = 1
    return len(data)
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A systemd with the shipped units and an application in /srv/shop."""
    why = why_not()
    if why:
        pytest.fail(f"no systemd can be started here: {why}")
    with Booted(tmp_path_factory.mktemp("booted")) as system:
        for name in ("qworker@.service", "qworker.slice", "qworker.target"):
            (system.root / "etc/systemd/system" / name).write_text(shipped(name))
        for folder in ("etc/qworker", "srv/shop", "etc/systemd/system/qworker@shop.service.d"):
            (system.root / folder).mkdir(parents=True)
        yield system


@pytest.fixture
def booted(system: Booted) -> Iterator[Booted]:
    """That systemd, with the unit as shipped and nothing running."""
    system.turn_the_page()
    settle(system)
    yield system
    print(system.journal("-u", UNIT))  # noqa: T201 - pytest shows it when the test has failed
    for task in ("long", "short"):
        finish(system, task)
    system.run("systemctl", "kill", "--signal=KILL", UNIT, check=False)
    system.run("systemctl", "stop", UNIT, check=False)
    system.run("systemctl", "reset-failed", check=False)
    for path in state(system).glob("*"):
        path.unlink()


def settle(system: Booted, drop_in: str = "", app: str = APP, **settings: str) -> None:
    """Write the application, its environment file, and a drop-in for the unit."""
    (system.root / "srv/shop/shop.py").write_text(app)
    lines = [f"QWORKER_{name.upper()}={value}" for name, value in ({"concurrency": "2"} | settings).items()]
    (system.root / "etc/qworker/shop.env").write_text(ENVIRONMENT + "\n".join(lines) + "\n")
    (system.root / "etc/systemd/system/qworker@shop.service.d/test.conf").write_text(f"[Service]\n{drop_in}\n")
    system.run("systemctl", "daemon-reload")


def start(system: Booted) -> int:
    """Start the unit; returns the master's pid inside."""
    system.run("systemctl", "start", UNIT)
    return int(system.show(UNIT, "MainPID"))


def state(system: Booted) -> Path:
    """The service's state directory, which both sides can write to."""
    return system.root / "var/lib/qworker/shop"


def finish(system: Booted, task: str) -> None:
    """Let a `gate` of this name end."""
    if state(system).exists():
        (state(system) / task).touch()


def call(system: Booted, task: str, *arguments: object) -> str:
    """Publish a task as the service's user; returns its id."""
    return as_user(system, "call", f"shop.{task}", "--args", json.dumps(arguments)).splitlines()[-1].strip()


def as_user(system: Booted, *arguments: str) -> str:
    settings = (system.root / "etc/qworker/shop.env").read_text().split()
    command = ["setpriv", "--reuid=qworker", "--regid=qworker", "--clear-groups", "env", "-C", "/srv/shop", *settings]
    return system.run(*command, "qworker", "-A", "shop", *arguments)


def result(system: Booted, task: str) -> dict[str, object]:
    """Wait for a task's result."""
    text = as_user(system, "result", task, "--timeout", "20")
    found: dict[str, object] = json.loads(text.rpartition("result: ")[2])
    return found


def begun(system: Booted, task: str) -> int:
    """Wait until a `gate` of this name runs; returns its pid inside."""
    path = state(system) / f"{task}.begun"
    wait_until(lambda: path.exists() and path.read_text(), "the task runs")
    return int(path.read_text())


def wait_for_journal(system: Booted, text: str, *filters: str) -> None:
    """Wait until the journal, which hears from others a moment later, has this text."""
    wait_until(lambda: text in system.journal(*filters), f"{text!r} in the journal")


def waiting(system: Booted) -> int:
    """How many messages wait on the queue."""
    return int(as_user(system, "queues").split()[-1])


def test_it_is_started_when_it_works_confined_and_with_a_line_about_itself(booted: Booted) -> None:
    start(booted)
    assert booted.show(UNIT, "ActiveState") == "active"
    assert booted.show(UNIT, "StatusText") == "running: 0/2 busy, 0 held"
    seen = result(booted, call(booted, "seen"))
    assert seen["uid"] != 0
    assert (seen["names"], seen["etc"], seen["state"]) == ([], False, True)


def test_a_start_lasts_until_the_broker_answers_however_long(booted: Booted) -> None:
    with RedisServer() as server:
        server.stop()
        settle(booted, "TimeoutStartSec=3", broker=server.url)
        booted.run("systemctl", "start", "--no-block", UNIT)
        wait_until(lambda: "broker unreachable" in booted.show(UNIT, "StatusText"), "it tries to reach the broker")
        time.sleep(5)  # longer than systemd would wait unasked: nothing to wait for
        assert booted.show(UNIT, "ActiveState") == "activating"
        server.restart()
        wait_until(lambda: booted.show(UNIT, "ActiveState") == "active", "it has started", 40)
        assert booted.show(UNIT, "NRestarts") == "0"
        booted.run("systemctl", "stop", UNIT)


def test_a_stop_lets_a_task_finish_beyond_the_time_out_of_the_unit(booted: Booted) -> None:
    settle(booted, "TimeoutStopSec=2", soft_shutdown_timeout="60")
    start(booted)
    call(booted, "gate", "long")
    begun(booted, "long")
    booted.run("systemctl", "stop", "--no-block", UNIT)
    wait_until(lambda: "stopping (soft), 5" in booted.show(UNIT, "StatusText"), "it says how long it may take")
    wait_until(lambda: any(f" {n} s left" in booted.show(UNIT, "StatusText") for n in range(50, 57)), "time passes")
    finish(booted, "long")
    wait_until(lambda: booted.show(UNIT, "ActiveState") == "inactive", "it has stopped")
    assert (state(booted) / "long.ended").exists()
    wait_for_journal(booted, "stopped, exit code 0", "-u", UNIT)


def test_a_stop_that_cuts_a_task_gives_it_back_and_is_no_failure(booted: Booted) -> None:
    settle(booted, soft_shutdown_timeout="1")
    start(booted)
    call(booted, "gate", "long")
    begun(booted, "long")
    booted.run("systemctl", "stop", UNIT)
    assert booted.show(UNIT, "ActiveState") == "inactive", "and not failed"
    wait_for_journal(booted, "stopped, exit code 1", "-u", UNIT)
    assert waiting(booted) == 1


def test_a_worker_that_stands_still_is_ended_by_the_watchdog_and_started_anew(booted: Booted) -> None:
    settle(booted, "WatchdogSec=4\nRestartSec=0")
    master = start(booted)
    time.sleep(6)  # while it works, the watchdog leaves it alone: nothing to wait for
    assert booted.show(UNIT, "MainPID") == str(master)
    booted.run("kill", "-STOP", str(master))
    wait_until(lambda: booted.show(UNIT, "NRestarts") == "1", "the watchdog has ended it", 60)
    wait_until(lambda: booted.show(UNIT, "ActiveState") == "active", "another one works", 30)
    wait_for_journal(booted, "Watchdog timeout", "-u", UNIT)
    wait_for_journal(booted, "Current thread", "-u", UNIT)  # its stacks
    assert booted.show(UNIT, "MainPID") != str(master)


def test_reload_takes_the_new_code_and_a_broken_one_changes_nothing(booted: Booted) -> None:
    master = start(booted)
    settle(booted, app=APP + "\n@app.task\ndef fresh():\n    return {'is': 'fresh'}\n")
    booted.run("systemctl", "reload", UNIT)
    wait_for_journal(booted, "the old children have left", "-u", UNIT)
    assert result(booted, call(booted, "fresh")) == {"is": "fresh"}
    (booted.root / "srv/shop/shop.py").write_text("raise RuntimeError('broken deploy')\n")
    booted.run("systemctl", "reload", UNIT)
    wait_until(lambda: "broken deploy" in booted.show(UNIT, "StatusText"), "it says why")
    wait_until(lambda: booted.show(UNIT, "SubState") == "running", "the reload is over")
    assert (booted.show(UNIT, "ActiveState"), booted.show(UNIT, "MainPID")) == ("active", str(master))


def test_a_broken_application_is_not_started_again_and_again(booted: Booted) -> None:
    settle(booted, "RestartSec=0", app="raise RuntimeError('broken')\n")
    booted.run("systemctl", "start", UNIT, check=False)
    wait_until(lambda: booted.show(UNIT, "ActiveState") == "failed", "it has failed")
    assert (booted.show(UNIT, "ExecMainStatus"), booted.show(UNIT, "NRestarts")) == ("3", "0")
    wait_for_journal(booted, "RuntimeError: broken", "-u", UNIT, "-p", "err")


def test_a_worker_that_dies_is_started_anew(booted: Booted) -> None:
    settle(booted, "RestartSec=0")
    master = start(booted)
    booted.run("kill", "-KILL", str(master))
    wait_until(lambda: booted.show(UNIT, "NRestarts") == "1", "systemd has started it anew")
    wait_until(lambda: booted.show(UNIT, "ActiveState") == "active", "it works")
    assert booted.show(UNIT, "MainPID") != str(master)


def test_a_child_that_dies_leaves_the_unit_alone(booted: Booted) -> None:
    master = start(booted)
    call(booted, "gate", "long")
    booted.run("kill", "-KILL", str(begun(booted, "long")))
    wait_for_journal(booted, "SIGKILL", "-u", UNIT)
    finish(booted, "long")
    wait_until(lambda: (state(booted) / "long.ended").exists(), "the task has run again")
    assert (booted.show(UNIT, "ActiveState"), booted.show(UNIT, "MainPID")) == ("active", str(master))


def test_the_target_stops_and_starts_every_worker(booted: Booted) -> None:
    booted.run("systemctl", "enable", UNIT)
    start(booted)
    booted.run("systemctl", "stop", "qworker.target")
    wait_until(lambda: booted.show(UNIT, "ActiveState") == "inactive", "it has stopped")
    booted.run("systemctl", "start", "qworker.target")
    wait_until(lambda: booted.show(UNIT, "ActiveState") == "active", "it has started")
    assert booted.show(UNIT, "Slice") == "qworker.slice"
    booted.run("systemctl", "disable", UNIT)


def test_the_journal_knows_what_is_a_warning(booted: Booted) -> None:
    start(booted)
    call(booted, "gate", "long")
    booted.run("kill", "-KILL", str(begun(booted, "long")))
    wait_for_journal(booted, "SIGKILL", "-u", UNIT, "-p", "warning")
    wait_for_journal(booted, "[INFO/MainProcess] ready: 2 children", "-u", UNIT, "-p", "info")
    assert "ready: 2 children" not in booted.journal("-u", UNIT, "-p", "warning")


def test_an_operator_asks_the_service_how_it_is(booted: Booted) -> None:
    start(booted)
    assert (booted.root / "run/qworker/shop").is_dir()
    settings = ENVIRONMENT.split()
    booted.run("env", *settings, "qworker", "health", "--ready")
    assert "shop@" in booted.run("env", *settings, "qworker", "status")
    booted.run("systemctl", "stop", UNIT)
    assert "no worker" in booted.run("env", *settings, "qworker", "health", check=False)


def test_what_install_writes_runs_as_its_last_lines_say(booted: Booted) -> None:
    start(booted)  # makes the state directory, where the application's broker is
    booted.run("systemctl", "stop", UNIT)
    settings = (booted.root / "etc/qworker/shop.env").read_text().split()
    options = ["-A", "shop", "-c", "1", "--run-as", "qworker", "--soft-shutdown-timeout", "7"]
    said = booted.run("env", "-C", "/srv/shop", *settings, "qworker", "systemd", "install", *options)
    steps = [line.split() for line in said.partition("next:")[2].splitlines() if line.strip().startswith("systemctl")]
    assert len(steps) == 3, said
    for step in steps:
        booted.run(*step)
    assert booted.show("qworker-shop", "ActiveState") == "active"
    assert booted.show("qworker-shop", "StatusText") == "running: 0/1 busy, 0 held"
    assert booted.show("qworker-shop", "TimeoutStopUSec") == "27s"
    assert booted.run("systemctl", "is-enabled", "qworker-shop").strip() == "enabled"
    booted.run("systemctl", "disable", "--now", "qworker-shop")


MANAGER = """
[Service]
Type=notify
User=me
Environment=XDG_RUNTIME_DIR=/run/user/4321 HOME=/home/me
Delegate=yes
ExecStart=/lib/systemd/systemd --user
"""


def test_a_user_runs_a_unit_of_their_own_without_root(booted: Booted) -> None:
    booted.run("useradd", "--create-home", "--uid", "4321", "me")
    booted.run(
        "install", "-d", "-o", "me", "-m", "700", "/run/user/4321", "/home/me/.config", "/home/me/.config/qworker"
    )
    (booted.root / "home/me/shop.py").write_text("from qworker import App\napp = App('shop')\n")
    (booted.root / "home/me/.config/qworker/shop.env").write_text(ENVIRONMENT)
    (booted.root / "etc/systemd/system/manager.service").write_text(MANAGER)
    booted.run("systemctl", "daemon-reload")
    booted.run("systemctl", "start", "manager")
    settings = ["HOME=/home/me", "XDG_RUNTIME_DIR=/run/user/4321", *ENVIRONMENT.split()]
    me = ["setpriv", "--reuid=me", "--regid=me", "--clear-groups", "env", "-C", "/home/me", *settings]
    said = booted.run(*me, "qworker", "systemd", "install", "-A", "shop", "-c", "1", "--user")
    for line in said.partition("next:")[2].splitlines():
        if line.strip().startswith("systemctl"):
            booted.run(*me, *line.split())
    status = booted.run(*me, "systemctl", "--user", "show", "-p", "ActiveState,StatusText", "qworker-shop")
    assert "ActiveState=active" in status
    assert "running: 0/1 busy" in status
    assert "shop@" in booted.run(*me, "qworker", "status")
    booted.run("systemctl", "stop", "manager")


def test_a_worker_out_of_memory_loses_a_child_and_not_itself(booted: Booted) -> None:
    has_controller = "memory" in (booted.root / "sys/fs/cgroup/cgroup.controllers").read_text().split()
    settle(booted, "MemoryMax=300M\nMemorySwapMax=0")
    master = start(booted)
    limit = nullcontext() if has_controller else booted.memory_limited("qworker.slice/qworker@shop.service", 300)
    with limit:
        call(booted, "eat", 600)
        wait_for_journal(booted, "SIGKILL", "-u", UNIT, "-p", "warning")
        call(booted, "gate", "short")
        begun(booted, "short")
    assert (booted.show(UNIT, "ActiveState"), booted.show(UNIT, "MainPID")) == ("active", str(master))
