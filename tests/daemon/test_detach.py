"""`--detach`: the command returns when the worker is ready or has failed, with its exit code and the reason."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from support.background import Background
from support.waiting import wait_until


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody answers, and which nobody else can get meanwhile."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def test_the_command_returns_when_the_worker_is_ready_and_says_its_pid(home: Background) -> None:
    ended = home.start()

    assert ended.returncode == 0, ended.stderr
    assert f"is ready and runs in the background, pid {home.pid}\n" in ended.stdout
    assert "qworker: master running" in " ".join(psutil.Process(home.pid).cmdline())
    assert home.call("say", "--args", '["hello"]').strip().isdigit()
    home.stop()
    assert not home.pidfile.exists()
    assert "stopped, exit code 0" in home.log


def test_the_worker_keeps_nothing_of_its_caller(home: Background) -> None:
    """`start` reads the command's output to its end, so it would wait if the worker kept the pipe."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    ended = subprocess.run(
        home.command(), cwd=home.folder, capture_output=True, close_fds=False, timeout=60, stdin=subprocess.DEVNULL
    )
    os.close(write_end)

    assert ended.returncode == 0, ended.stderr
    assert os.read(read_end, 1) == b"", "the worker holds a descriptor of whoever started it"
    os.close(read_end)
    master = psutil.Process(home.pid)
    assert os.getsid(master.pid) not in (os.getsid(0), master.pid), "it is in a session that it does not lead"
    assert master.terminal() is None
    assert os.readlink(f"/proc/{master.pid}/fd/0") == os.devnull
    assert {os.readlink(f"/proc/{master.pid}/fd/{fd}") for fd in (1, 2)} == {str(home.log_path)}
    assert master.ppid() not in (os.getpid(), 0)


@pytest.mark.parametrize(
    ("spoilt", "arguments", "code", "reason"),
    [
        ("import no_such_module", (), 3, "No module named 'no_such_module'"),
        ("app.conf.update(no_such_setting=1)", (), 4, "no_such_setting"),
        ("", ("-b", "ftp://x"), 4, "ftp"),
        ("", ("--umask", "999"), 2, "octal"),
        ("", ("--uid", "no-such-user"), 4, "--uid no-such-user: there is no user of this name"),
        ("", ("--gid", "no-such-group"), 4, "--gid no-such-group: there is no group of this name"),
        ("", ("-f", "/no/such/folder/w.log"), 4, "the log file /no/such/folder/w.log cannot be opened"),
        ("", ("--pidfile", "/no/such/folder/w.pid"), 4, "the pid file /no/such/folder/w.pid cannot be written"),
        ("", ("--workdir", "/no/such/folder"), 4, "--workdir /no/such/folder: No such file or directory"),
        ("", ("-f", "x%q.log"), 2, "%q means nothing"),
    ],
)
def test_a_start_that_fails_is_told_to_the_caller_with_its_code_and_reason(
    home: Background, spoilt: str, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    with (home.folder / "home.py").open("a") as file:
        file.write(spoilt + "\n")
    ended = home.start(*arguments)

    assert ended.returncode == code, ended.stderr
    assert reason in ended.stderr
    assert not home.pidfile.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_why_the_start_takes_its_time_is_shown_while_it_does_and_an_interrupt_ends_it(
    home: Background, closed_port: int, number: signal.Signals
) -> None:
    command = home.command("-b", f"redis://127.0.0.1:{closed_port}/0")
    with subprocess.Popen(command, cwd=home.folder, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        lines = iter(waiting.stderr.readline, "")
        assert any("attempt 1 of 100" in line for line in lines)
        pid = home.pid
        home.tree()
        waiting.send_signal(number)
        assert waiting.wait(60) == 128 + number, "no worker is left in the background"
    assert not psutil.pid_exists(pid)
    assert not home.pidfile.exists()


def test_a_worker_that_is_killed_before_it_is_ready_is_told(home: Background, closed_port: int) -> None:
    command = home.command("-b", f"redis://127.0.0.1:{closed_port}/0")
    with subprocess.Popen(command, cwd=home.folder, stderr=subprocess.PIPE, text=True) as waiting:
        wait_until(lambda: home.pidfile.exists() and "attempt 1" in home.log, "it tries to reach its broker")
        home.tree()
        os.kill(home.pid, signal.SIGKILL)
        _, told = waiting.communicate(timeout=60)
    assert waiting.returncode == 128 + signal.SIGKILL
    assert "the worker was ended by SIGKILL before it was ready" in told


def test_a_worker_whose_caller_is_killed_goes_on(home: Background) -> None:
    release = home.folder / "go"
    with (home.folder / "home.py").open("a") as file:
        file.write("while not (FOLDER / 'go').exists():\n    time.sleep(0.01)\n")
    with subprocess.Popen(home.command(), cwd=home.folder) as command:
        wait_until(home.pidfile.exists, "the worker has begun")
        command.kill()
    release.touch()
    wait_until(lambda: "ready: 1 children" in home.log, "the worker is ready")


def test_detach_as_process_1_is_refused(home: Background) -> None:
    if os.geteuid() != 0:
        prefix = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    else:
        prefix = ["unshare", "--pid", "--fork"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare: this machine allows no PID namespace")
    ended = home.start(prefix=prefix)

    assert ended.returncode == 4
    assert "--detach as process 1: the container would end with this command" in ended.stderr
    assert not home.pidfile.exists()


def test_relative_names_are_meant_from_the_working_directory(home: Background, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qworker", "-A", "home", "-c", "1", "-D", "--workdir", str(home.folder)]
    ended = subprocess.run(
        [*command, "--pidfile", "w.pid", "-f", "w.log"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    home.tree()
    assert "ready: 1 children" in home.log
    home.stop()
    assert not home.pidfile.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_caller_without_standard_streams_can_start_a_worker(home: Background) -> None:
    command = shlex.join(home.command()) + " <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=home.folder, timeout=60).returncode == 0
    home.tree()
    assert {os.readlink(f"/proc/{home.pid}/fd/{fd}") for fd in (1, 2)} == {str(home.log_path)}


def test_a_quiet_start_says_nothing(home: Background) -> None:
    ended = home.start("-q", "-l", "error")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
