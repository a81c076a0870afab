"""Workers in the background: started by the command that returns, watched by their pid file, never left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from .waiting import wait_until
from .worker import is_alive

APPLICATION = """
import os, sys, time
from pathlib import Path
from qworker import App

FOLDER = Path(__file__).parent
app = App("home", broker=f"sqlite:///{FOLDER}/data/q.db", backend=f"sqlite:///{FOLDER}/data/q.db")

@app.task
def who():
    umask = os.umask(0o77)
    os.umask(umask)
    return {"uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "cwd": os.getcwd(),
            "umask": umask, "home": os.environ.get("HOME"), "user": os.environ.get("USER"),
            "own memory": Path("/proc/self/smaps_rollup").read_text()[:4] != ""}

@app.task
def root_again():
    tried = []
    for change in (lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1), lambda: os.setgid(0),
                   lambda: os.setgroups([0]), lambda: open("/etc/shadow").close()):
        try:
            change()
            tried.append("worked")
        except PermissionError:
            tried.append("refused")
    return tried

@app.task
def say(text):
    print(text)
    return os.getpid()
"""


class Background:
    """A folder with the application `home`, and at most one worker of it in the background at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pidfile = folder / "w.pid"
        self.log_path = folder / "w.log"
        self._seen: dict[int, psutil.Process] = {}
        (folder / "home.py").write_text(APPLICATION)
        (folder / "data").mkdir()
        (folder / "data").chmod(0o777)

    def start(
        self, *arguments: str, env: dict[str, str] | None = None, prefix: Sequence[str] = (), limit_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """The command with `--detach`, run until it returns; its output comes by pipes that it must let go of."""
        ended = subprocess.run(
            [*prefix, *self.command(*arguments)],
            cwd=self.folder,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
        self.tree()
        return ended

    def command(self, *arguments: str) -> list[str]:
        words = [sys.executable, "-m", "qworker", "-A", "home", "-c", "1", "-D"]
        return [*words, "--pidfile", str(self.pidfile), "-f", str(self.log_path), *arguments]

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def call(self, task: str, *arguments: str) -> str:
        """Send a task, wait for it, return what the command prints."""
        ended = subprocess.run(
            [sys.executable, "-m", "qworker", "-A", "home", "call", f"home.{task}", "--wait", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def tree(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            master = psutil.Process(self.pid)
            if "qworker" in " ".join(master.cmdline()):
                found = [master, *master.children(recursive=True)]
        for process in found:
            self._seen.setdefault(process.pid, process)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Signal the master and wait for the end of all."""
        self.tree()
        os.kill(self.pid, number)
        wait_until(lambda: not self.survivors(), "all processes of the worker have ended", 20)

    def survivors(self) -> list[psutil.Process]:
        return [process for process in self._seen.values() if is_alive(process)]

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.tree()
        for process in self.survivors():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        sys.stderr.write(f"--- log of the worker\n{self.log}\n")


def way_for_others(folder: Path) -> list[str]:
    """A prefix for commands that then work for any user; empty where Python can be read by all anyway.

    Where Python lives in a home that nobody else may enter, a private view of that home is opened (root only). Nothing
    of it is written to.
    """
    closed = _closed_above(Path(os.__file__).resolve(), Path(sys.prefix), Path(psutil.__file__).resolve())
    if not closed:
        return []
    script = "set -e; "
    for number, place in enumerate(closed):
        upper, work = folder / f"upper{number}", folder / f"work{number}"
        upper.mkdir()
        work.mkdir()
        options = f"lowerdir={place},upperdir={upper},workdir={work}"
        script += f"mount -t overlay overlay -o '{options}' '{place}'; chmod 755 '{place}'; "
    return ["unshare", "--mount", "sh", "-c", script + 'exec "$@"', "sh"]


def _closed_above(*paths: Path) -> list[Path]:
    folders = {parent for path in paths for parent in path.parents}
    return sorted(folder for folder in folders if not folder.stat().st_mode & stat.S_IXOTH)
