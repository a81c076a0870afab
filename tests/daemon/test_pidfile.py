"""One living worker per pid file; a stale one is taken over, and only what is ours is removed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qworker.core.errors import ConfigError
from qworker.daemon import Pidfile, pidfile

from support.background import Background
from support.waiting import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.pid"


@pytest.fixture
def pretender() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose title is that of a worker's master."""
    code = "import setproctitle, time; setproctitle.setproctitle('qworker: master running'); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        shown = Path(f"/proc/{process.pid}/cmdline")
        wait_until(lambda: shown.read_bytes().startswith(b"qworker: master"), "it is titled")
        yield process
        process.kill()


def ended_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_it_holds_the_number_and_goes_with_its_process(path: Path) -> None:
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["w.pid"], "nothing is left beside it"
    pidfile.release()
    assert not path.exists()


def test_the_file_of_a_process_that_is_gone_is_taken_over(path: Path) -> None:
    path.write_text(f"{ended_pid()}\n")
    Pidfile(str(path)).acquire()
    assert path.read_text() == f"{os.getpid()}\n"


def test_the_file_of_a_process_that_is_no_worker_is_taken_over(path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        path.write_text(str(other.pid))
        Pidfile(str(path)).acquire()
        other.kill()
    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["", "\n", "garbage", "-5", "0", "99999999999999999999", "\0\0\0\0"])
def test_a_file_that_is_spoilt_is_taken_over(path: Path, content: str) -> None:
    path.write_text(content)
    Pidfile(str(path)).acquire()
    assert path.read_text() == f"{os.getpid()}\n"


def test_the_file_of_a_living_worker_is_refused(path: Path, pretender: subprocess.Popen[bytes]) -> None:
    path.write_text(str(pretender.pid))
    with pytest.raises(ConfigError, match=f"belongs to a worker that runs, pid {pretender.pid}: stop that one first"):
        Pidfile(str(path)).acquire()
    assert path.read_text() == str(pretender.pid)


def test_a_thread_of_a_worker_is_no_worker(path: Path) -> None:
    code = (
        "import setproctitle, threading, time; setproctitle.setproctitle('qworker: master running');"
        "t = threading.Thread(target=time.sleep, args=(60,), daemon=True); t.start();"
        "print(t.native_id, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path.write_text(process.stdout.readline())
        Pidfile(str(path)).acquire()
        process.kill()


def test_what_is_no_pid_file_is_left_alone(path: Path) -> None:
    path.write_text("root:x:0:0:root:/root:/bin/bash\n" * 5)
    with pytest.raises(ConfigError, match="holds no process id: it is no pid file, and is left alone"):
        Pidfile(str(path)).acquire()
    assert path.read_text().startswith("root:x:0")


def test_a_link_is_replaced_and_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    path.symlink_to(target)
    Pidfile(str(path)).acquire()
    assert target.read_text() == ""
    assert not path.is_symlink()


def test_only_the_own_file_is_removed(path: Path) -> None:
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    path.write_text("1\n")  # another worker has been started with the same file by force
    pidfile.release()
    assert path.read_text() == "1\n"


def test_of_workers_that_start_at_once_one_gets_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    path.write_text(f"{ended_pid()}\n")
    code = (
        "import setproctitle, sys; setproctitle.setproctitle('qworker: master starting');"
        "from qworker.daemon import Pidfile, pidfile; from qworker.core.errors import ConfigError\n"
        "pidfile.LOCK_S = 60\n"  # who stands still with the lock on a busy machine has not gone
        "sys.stdin.readline()\n"
        "try:\n    Pidfile(sys.argv[1]).acquire(); print('mine', flush=True)\n"
        "except ConfigError: print('refused', flush=True)\n"
        "sys.stdin.readline()"
    )
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for line in range(2):
        for starter in starters:
            assert starter.stdin is not None
            starter.stdin.write("go\n")
            starter.stdin.flush()
        if line == 0:
            said = [starter.stdout.readline().strip() for starter in starters if starter.stdout is not None]
    for starter in starters:
        starter.communicate(timeout=20)
    assert sorted(said) == ["mine", *["refused"] * 5]


def test_who_holds_the_lock_of_the_folder_for_ever_keeps_nobody_from_starting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pidfile, "LOCK_S", 0.1)
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        Pidfile(str(path)).acquire()
    finally:
        os.close(fd)
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_second_worker_is_refused_and_leaves_the_first_one_s_file(home: Background) -> None:
    assert home.start().returncode == 0
    first = home.pid
    second = home.start("-f", str(home.folder / "second.log"))

    assert second.returncode == 4
    assert f"belongs to a worker that runs, pid {first}" in second.stderr
    assert home.pid == first


def test_a_worker_that_was_killed_leaves_a_file_that_the_next_one_takes_over(home: Background) -> None:
    assert home.start().returncode == 0
    first = home.pid
    home.tree()
    os.kill(first, 9)
    wait_until(lambda: not home.survivors(), "all processes of the worker have ended")
    assert home.pid == first

    assert home.start().returncode == 0
    assert home.pid != first
