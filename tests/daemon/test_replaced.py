"""A worker in the background whose consumer hangs starts anew in place: nothing that was done once is done again."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from support.background import Background, way_for_others
from support.waiting import wait_until

NOBODY = 65534
#: The consumer of a worker hangs, once, when a file of that name appears.
_PLANT = """
import time
from pathlib import Path
from qworker.worker.consumer import Consumer

hang = Path(__file__).parent / "hang"
turn = Consumer.turn

def hanging_turn(self):
    if hang.exists():
        hang.unlink()
        time.sleep(600)
    turn(self)

Consumer.turn = hanging_turn
"""


def plant(home: Background) -> Path:
    """Have the consumer hang when the file `hang` appears in the folder that is returned."""
    plants = home.folder / "plants"
    plants.mkdir()
    plants.chmod(0o777)
    (plants / "sitecustomize.py").write_text(_PLANT)
    with (home.folder / "home.py").open("a") as file:
        # No other hold-up of a busy machine lasts so long: the process is replaced for this hang alone, and once.
        file.write("app.conf.worker_deaf_timeout = 5\n")
    return plants


def test_it_keeps_its_process_pid_file_user_and_log(home: Background) -> None:
    plants = plant(home)
    root_only = home.folder / "root's"
    root_only.mkdir(mode=0o700)
    path = os.pathsep.join([str(plants), *filter(None, [os.environ.get("PYTHONPATH")])])
    drop = ["--uid", str(NOBODY), "--gid", str(NOBODY)] if os.geteuid() == 0 else []
    prefix = way_for_others(home.folder) if drop else []
    caller = {"HOME": "/root", "USER": "root", "XDG_RUNTIME_DIR": str(root_only)} if drop else {}
    ended = home.start(*drop, prefix=prefix, env={"PYTHONPATH": path, **caller})
    assert ended.returncode == 0, ended.stderr
    who = home.call("who")
    pid, session = home.pid, os.getsid(home.pid)

    (plants / "hang").touch()
    wait_until(lambda: home.log.count("ready: 1 children") == 2, "it is ready once more", 40)

    assert "this process was started anew because its consumer thread hung" in home.log
    assert home.pid == pid
    assert home.call("who") == who
    assert os.getsid(pid) == session
    master = psutil.Process(pid)
    assert set(master.uids()) == ({NOBODY} if drop else {os.geteuid()})
    assert Path(f"/proc/{pid}/fd/2").readlink() == home.log_path
    assert "_QWORKER" not in "".join(name for child in master.children() for name in child.environ())
    home.stop()
    assert not home.pidfile.exists() or home.pidfile.read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_finds_its_folder_although_it_was_told_from_one_of_root_alone(home: Background) -> None:
    plants = plant(home)
    root_only = home.folder / "root's"
    root_only.mkdir(mode=0o700)
    path = os.pathsep.join([str(plants), *filter(None, [os.environ.get("PYTHONPATH")])])
    to = [*way_for_others(home.folder), "env", "-C", str(root_only)]
    ended = home.start(
        "--uid", str(NOBODY), "--gid", str(NOBODY), "--workdir", "..", prefix=to, env={"PYTHONPATH": path}
    )
    assert ended.returncode == 0, ended.stderr
    who = home.call("who")

    (plants / "hang").touch()
    wait_until(lambda: home.log.count("ready: 1 children") == 2, "it is ready once more", 40)

    assert home.call("who") == who
    home.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_log_that_was_moved_away_from_a_closed_folder_is_written_on(home: Background) -> None:
    plants = plant(home)
    path = os.pathsep.join([str(plants), *filter(None, [os.environ.get("PYTHONPATH")])])
    drop = ["--uid", str(NOBODY), "--gid", str(NOBODY)]
    ended = home.start(*drop, prefix=way_for_others(home.folder), env={"PYTHONPATH": path})
    assert ended.returncode == 0, ended.stderr
    moved = home.log_path.rename(home.folder / "w.log.1")

    (plants / "hang").touch()
    wait_until(lambda: moved.read_text().count("ready: 1 children") == 2, "it is ready once more", 40)

    assert "cannot be opened: Permission denied: lines go to standard error" in moved.read_text()
    home.call("say", "--args", '["heard"]')
    wait_until(lambda: "heard" in moved.read_text(), "a child writes there, too")
    home.stop()
