"""A container without an engine: what Docker or Kubernetes would do with the image, by the kernel's own means.

PID and mount namespaces, a read-only root made of the host's (overlayfs, so nothing of it is ever written), tmpfs on
/tmp, a dropped user without capabilities and without a way back, control groups, and only the environment that the
image sets.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from ..waiting import wait_until
from .dockerfile import DOCKERFILE, REPO, stages

USER = "10001:0"
ENTRYPOINT = REPO / "docker" / "entrypoint"
_HOST_PATH = "/usr/local/bin:/usr/bin:/bin"
_UNSHARE = ("unshare", "--mount", "--pid", "--fork")
_TOOLS = ("unshare", "nsenter", "setpriv", "chroot", "mount")

_SETUP = """
set -eu
for group in $GROUPS_TO_JOIN; do echo 0 > "$group"; done
mount -t overlay overlay -o "lowerdir=/,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/root"
cd "$WORK/root"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs -o mode=1777,size=64m tmpfs tmp
for pair in $BINDS; do mkdir -p ".${pair#*=}"; mount --bind "${pair%%=*}" ".${pair#*=}"; done
mount -o remount,ro .
exec chroot . "$@"
"""


def why_no_containers(folder: Path) -> str | None:
    """Why this machine lets us have none, as the reason of a skip; None when it does."""
    if missing := [tool for tool in _TOOLS if not shutil.which(tool)]:
        return f"needs unshare: no {', '.join(missing)}"
    if os.getuid() != 0:
        return "needs root: only root may become another user, and mount"
    with Container(folder, ["/bin/true"], entrypoint=None) as container:
        code = container.wait()
    return f"needs unshare: {container.log.strip()}" if code else None


class Container:
    """One container, and its first process. A context manager: leaving it kills what is left.

    `image` is what a built one adds to the host's root; without it the installed package is put where the image has it.
    `binds` are folders that are seen inside at another path; `without` names variables of the image to leave out.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        binds: Mapping[Path, str] | None = None,
        image: Path | None = None,
        groups: Sequence[Path] = (),
        without: Sequence[str] = (),
        user: str = USER,
        entrypoint: str | None = "/usr/local/bin/qworker-entrypoint",
    ) -> None:
        self._work = folder / f"container-{time.monotonic_ns()}"
        for name in ("work", "root"):
            (self._work / name).mkdir(parents=True)
        self._user = user
        self.env = {name: value for name, value in environment().items() if name not in without} | dict(env or {})
        if image is not None:
            subprocess.run(["cp", "-a", image, self._work / "upper"], check=True)
        else:
            self._put_package_into_place()
        binds = dict(binds or {}) | open_ways(self._work / "upper")
        (self._work / "upper" / "app").mkdir(exist_ok=True)
        self.log_path = self._work / "log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*_UNSHARE, "sh", "-c", _SETUP, "sh", *self._as_user([*filter(None, [entrypoint]), *command])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
                    "WORK": str(self._work),
                    "GROUPS_TO_JOIN": shlex.join(map(str, groups)),
                    "BINDS": shlex.join(f"{source}={target}" for source, target in binds.items()),
                },
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def first(self) -> psutil.Process:
        """The container's process 1, as the host sees it."""
        (found,) = psutil.Process(self.process.pid).children()
        return found

    def title(self, process: psutil.Process | None = None) -> str:
        try:
            return " ".join((process or self.first).cmdline())
        except (psutil.NoSuchProcess, ValueError):
            return ""

    def wait_ready(self) -> Container:
        try:
            wait_until(lambda: "qworker: master running" in self.title(), "the worker runs")
        except AssertionError:
            raise AssertionError(f"the worker did not become ready:\n{self.log}") from None
        return self

    def children(self) -> list[psutil.Process]:
        """The processes that run tasks."""
        return [p for p in self.first.children(recursive=True) if "qworker: child" in self.title(p)]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """What `docker stop` sends, to process 1 alone."""
        self.first.send_signal(number)

    def wait(self, limit_s: float = 30.0) -> int:
        """Wait for the end; returns the exit code."""
        try:
            wait_until(lambda: self.process.poll() is not None, "the container's end", limit_s)
        except AssertionError:
            raise AssertionError(f"the container did not end within {limit_s} s:\n{self.log}") from None
        return int(self.process.returncode)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as `docker exec` and a probe do: same user, same environment, no entrypoint."""
        inside = ["nsenter", "--target", str(self.first.pid), "--mount", "--pid", "--root", "--wd"]
        return subprocess.run([*inside, *self._as_user(command)], capture_output=True, text=True, timeout=60)

    def __enter__(self) -> Container:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for first in psutil.Process(self.process.pid).children() if self.process.poll() is None else ():
            first.kill()  # process 1: the kernel ends its whole namespace
        self.process.wait()
        sys.stderr.write(f"--- log of the container\n{self.log}\n")  # pytest shows it when the test has failed

    def _as_user(self, command: Sequence[str]) -> list[str]:
        uid, gid = self._user.split(":")
        drop = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        clean = ["env", "-i", "--chdir=/app", *(f"{name}={value}" for name, value in self.env.items())]
        return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *drop, *clean, *command]

    def _put_package_into_place(self) -> None:
        """Where the image has its virtual environment stands a script that runs the installed package."""
        upper = self._work / "upper"
        for name, path in (("opt/qworker/bin/qworker", None), ("usr/local/bin/qworker-entrypoint", ENTRYPOINT)):
            (upper / name).parent.mkdir(parents=True, exist_ok=True)
            if path:
                shutil.copy(path, upper / name)
            else:
                (upper / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m qworker "$@"\n')
                (upper / name).chmod(0o755)
        if "PYTHONPATH" in os.environ:
            self.env["PYTHONPATH"] = os.environ["PYTHONPATH"]


def environment() -> dict[str, str]:
    """What the image sets, and nothing of the host."""
    return stages(DOCKERFILE.read_text("utf-8"))[-1].environment({"PATH": _HOST_PATH})


def open_ways(upper: Path) -> dict[Path, str]:
    """Let any user reach this Python (a home may be closed), and say what has to be seen again below the new /tmp."""
    needed = {Path(entry) for entry in (sys.prefix, sys.base_prefix, *os.environ.get("PYTHONPATH", "").split(":"))}
    needed |= {path.resolve() for path in needed} | {Path(sys.executable).resolve().parent, _package()}
    for path in needed:
        for parent in path.parents[:-1]:
            if parent.is_dir() and not parent.stat().st_mode & 1:
                (upper / parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
                (upper / parent.relative_to("/")).chmod(0o755)
    return {path: str(path) for path in needed if path.is_relative_to("/tmp") and path.is_dir()}


def _package() -> Path:
    import qworker

    return Path(qworker.__file__).resolve().parent
