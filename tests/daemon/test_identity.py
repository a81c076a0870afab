"""Root is given up for good, with all of its groups; who is not root is told so.

What is tested depends on who runs the tests: as root the drop itself, as anybody else that it is refused.
"""

from __future__ import annotations

import ast
import json
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from qworker.core.errors import ConfigError
from qworker.daemon import Identity
from qworker.monitor import find_sockets

from support.background import Background, way_for_others

IS_ROOT = os.geteuid() == 0
NOBODY = 65534


def test_nothing_is_asked_for_and_nobody_is_found() -> None:
    assert Identity.find(None, None) is None


def test_users_and_groups_have_names_and_numbers() -> None:
    me = pwd.getpwuid(os.geteuid())
    found = Identity.find(me.pw_name, str(os.getegid()))
    assert found == Identity.find(str(me.pw_uid), str(os.getegid()))
    assert found is not None
    assert (found.uid, found.gid, found.name) == (me.pw_uid, os.getegid(), me.pw_name)


@pytest.mark.parametrize(
    ("user", "group", "reason"),
    [
        ("no-such-user", None, "--uid no-such-user: there is no user of this name"),
        (None, "no-such-group", "--gid no-such-group: there is no group of this name"),
        (str(2**32 - 1), None, "can have this number"),
        ("3999999999", None, "give --gid as well"),
        ("", None, "there is no user"),
    ],
)
def test_who_does_not_exist_is_refused(user: str | None, group: str | None, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Identity.find(user, group)


def test_only_root_can_become_somebody_else(home: Background) -> None:
    if not IS_ROOT:
        ended = home.start("--uid", "0")
        assert ended.returncode == 4
        assert "only root can become" in ended.stderr
        return
    ended = home.start("--uid", "1", "--gid", "1", prefix=[*way_for_others(home.folder), *as_nobody()])
    assert ended.returncode == 4
    assert "only root can become user" in ended.stderr
    assert f"this process is user {NOBODY}" in ended.stderr


def as_nobody() -> list[str]:
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def test_who_is_that_user_already_may_say_so() -> None:
    found = Identity.find(str(os.geteuid()), str(os.getegid()))
    assert found is not None
    before = os.getresuid()
    found.become()
    assert os.getresuid() == before


def test_a_worker_gives_root_up_for_good(home: Background) -> None:
    if not IS_ROOT:
        with pytest.raises(ConfigError, match="only root can become user"):
            Identity.find("0", "0")
        return
    prefix = way_for_others(home.folder)
    ended = home.start(
        *("--uid", str(NOBODY), "--gid", str(NOBODY), "--umask", "027"), prefix=prefix, env={"XDG_RUNTIME_DIR": "/root"}
    )
    assert ended.returncode == 0, ended.stderr
    assert "runs as root" not in ended.stderr

    for process in home.tree():
        status = Path(f"/proc/{process.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert fields["Uid"].split() == [str(NOBODY)] * 4
        assert fields["Gid"].split() == [str(NOBODY)] * 4
        assert fields["Groups"].split() in ([str(NOBODY)], [])
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    shown = home.call("who")
    told = ast.literal_eval(shown) if shown.startswith("{'") else json.loads(shown)
    assert told["uids"] == [NOBODY] * 3
    assert told["umask"] == 0o27
    assert told["user"] == pwd.getpwuid(NOBODY).pw_name
    assert told["own memory"], "a process that has changed its user must stay readable for its own"
    assert json.loads(home.call("root_again")) == ["refused"] * 5


def test_what_root_has_made_belongs_to_the_user_and_stays_usable(home: Background) -> None:
    """The folder is root's: the user can neither remove the pid file nor make another log file there."""
    if not IS_ROOT:
        ended = home.start()
        assert ended.returncode == 0
        assert home.log_path.stat().st_uid == os.geteuid()
        return
    who = ("--uid", str(NOBODY), "--gid", str(NOBODY), "-n", "dropped@here")
    ended = home.start(*who, prefix=way_for_others(home.folder), env={"XDG_RUNTIME_DIR": "/root"})
    assert ended.returncode == 0, ended.stderr
    for path in (home.pidfile, home.log_path):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    (found,) = find_sockets("dropped@here")
    assert found.path.startswith(f"/run/qworker/{NOBODY}/dropped@here"), "a place that only root could give away"
    assert found.uid == NOBODY
    assert "ready: 1 children" in home.log
    home.stop()
    assert home.pidfile.read_text() == "", "it cannot be removed, so it is emptied"
    assert home.start().returncode == 0, "an empty one is stale"


def test_a_log_file_that_was_there_is_not_given_away(home: Background) -> None:
    home.log_path.write_text("precious\n")
    home.log_path.chmod(0o600)
    if not IS_ROOT:
        assert home.start().returncode == 0
        return
    ended = home.start("--uid", str(NOBODY), "--gid", str(NOBODY), prefix=way_for_others(home.folder))
    assert ended.returncode == 4
    assert f"the log file {home.log_path} cannot be opened: Permission denied" in ended.stderr
    assert home.log_path.stat().st_uid == 0
    assert home.log == "precious\n"
    assert not home.pidfile.exists() or home.pidfile.read_text() == ""


def test_a_python_that_the_user_cannot_read_is_told(home: Background) -> None:
    prefix = way_for_others(home.folder)
    if not IS_ROOT or not prefix:
        assert home.start().returncode == 0  # nothing is hidden here
        return
    ended = home.start("--uid", str(NOBODY), "--gid", str(NOBODY))
    assert ended.returncode == 4
    assert "install Python and qworker where this user can read them" in ended.stderr


def test_root_is_warned_once_and_others_are_not(home: Background) -> None:
    assert home.start().returncode == 0
    home.stop()
    assert home.log.count("this worker runs as root") == (1 if IS_ROOT else 0)


def test_pickle_as_root_is_refused_unless_forced(home: Background) -> None:
    with (home.folder / "home.py").open("a") as file:
        file.write("app.conf.accept_content = ['json', 'pickle']\n")
    env = {"C_FORCE_ROOT": ""}
    ended = home.start(env=env)
    if not IS_ROOT:
        assert ended.returncode == 0
        return
    assert ended.returncode == 4
    assert "accept_content holds 'pickle' and this process is root" in ended.stderr
    assert home.start(env={"C_FORCE_ROOT": "1"}).returncode == 0
    home.stop()
    # And as another user there is nothing to force.
    home.log_path.unlink()
    subprocess.run(["chown", "-R", str(NOBODY), home.folder / "data"], check=True)
    dropped = home.start("--uid", str(NOBODY), "--gid", str(NOBODY), env=env, prefix=way_for_others(home.folder))
    assert dropped.returncode == 0, dropped.stderr
