"""A real systemd, started as PID 1 of namespaces of its own: the host's files under an overlay, so nothing stays.

Root only. What the worker needs is shown inside at fixed places, whatever the place it was installed to: `/opt/python`
(the interpreter), `/opt/site` (its packages), `/opt/source/qworker` (this package), `/opt/bin/qworker` (the command).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import qworker

from .waiting import wait_until

#: For services: where the interpreter finds its library, and the packages.
ENVIRONMENT = "PATH=/opt/bin:/usr/bin:/bin\nPYTHONPATH=/opt/source:/opt/site\nLD_LIBRARY_PATH=/opt/python/lib\n"
SYSTEMD = "/usr/lib/systemd/systemd"
_TOOLS = ("unshare", "nsenter", "mount", "systemctl", "useradd")
_LAYERS = """
set -eu
cd "$1"
mount --make-rprivate /
mount -t tmpfs layers layers
mkdir layers/upper layers/work
mount -t overlay overlay -o lowerdir=/,upperdir="$1/layers/upper",workdir="$1/layers/work" root
mount -t proc proc root/proc
mount --bind root/proc/sys root/proc/sys
mount -o remount,bind,ro root/proc/sys
mount -t sysfs -o ro sysfs root/sys
for place in run tmp dev; do mount -t tmpfs -o mode=755 $place root/$place; done
chmod 1777 root/tmp
for node in null zero full random urandom tty; do touch root/dev/$node; mount --bind /dev/$node root/dev/$node; done
for place in dev/shm dev/pts dev/mqueue dev/hugepages opt/python opt/site opt/source/qworker opt/bin host; do
    mkdir -p root/$place
done
mount -t tmpfs -o mode=1777 shm root/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts root/dev/pts
ln -s pts/ptmx root/dev/ptmx
ln -s /proc/self/fd root/dev/fd
mount -t cgroup2 cgroup root/sys/fs/cgroup
mount --bind "$2" root/opt/python
mount --bind "$3" root/opt/site
mount --bind "$4" root/opt/source/qworker
journal=systemd-journald.service
printf "[Unit]\\nRequires=$journal\\nAfter=$journal\\n" > root/etc/systemd/system/tests.target
: > root/etc/fstab
cd root
pivot_root . host
exec env -i container=tests PATH=/usr/bin:/usr/sbin:/bin:/sbin \\
    chroot . sh -c 'umount -l /host && exec "$0" --system --unit=tests.target' "$5"
"""
_COMMAND = """#!{python}
from qworker.cli import main
if __name__ == "__main__":
    main()
"""


def why_not() -> str:
    """Why no systemd can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "only root may make the namespaces that it runs in"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing or not os.path.exists(SYSTEMD):
        return f"this machine has no {', '.join(missing or [SYSTEMD])}"
    if _cgroup2() is None:
        return "no cgroup version 2 hierarchy is mounted"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "true"], capture_output=True, text=True
    )
    return tried.stderr.strip()


class Booted:
    """The running systemd. A context manager: leaving it ends everything inside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._group = Path(_cgroup2() or "", f"qworker-tests-{os.getpid()}")
        self._since = time.time()
        self.pid = 0

    @property
    def root(self) -> Path:
        """Its root folder, as seen from here."""
        return Path(f"/proc/{self.pid}/root")

    def run(self, *command: str, check: bool = True, limit_s: float = 60.0) -> str:
        """Run a command inside; returns what it wrote."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-C", "-r", "-w", "--"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=limit_s)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout + done.stderr

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def journal(self, *filters: str) -> str:
        """The lines of the journal since the page was turned."""
        # Not --after-cursor: with a filter it leaves out the first line that fits.
        return self.run("journalctl", "--no-pager", "-o", "cat", f"--since=@{self._since:.6f}", *filters, check=False)

    def turn_the_page(self) -> None:
        """What stands in the journal is of no interest any more."""
        self._since = time.time()

    @contextmanager
    def memory_limited(self, unit_group: str, mib: int) -> Iterator[None]:
        """Limit the memory of a unit's processes by a version 1 group: where version 2 has no memory controller."""
        place = next((place for place, kind, options in _mounts() if kind == "cgroup" and "memory" in options), "")
        assert place, "no memory controller of either version is mounted"
        group = Path(place, self._group.name)
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(mib * 1024 * 1024))
            for pid in (self._group / unit_group / "cgroup.procs").read_text().split():
                (group / "cgroup.procs").write_text(pid)
            yield
        finally:
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):  # killed for its memory meanwhile
                    (group.parent / "cgroup.procs").write_text(pid)
            wait_until(lambda: _removed(group), "the control group is empty", 20.0)

    def __enter__(self) -> Booted:
        for name in ("layers", "root"):
            (self._folder / name).mkdir()
        self._group.mkdir()
        self._process = subprocess.Popen(
            [*["unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child"], *self._first()],
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: (self._group / "cgroup.procs").write_text("0") and None,
        )
        try:
            self.pid = wait_until(self._find, "PID 1 of the namespaces", 20.0)
            wait_until(self._is_up, "systemd runs", 60.0)
            self._furnish()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _first(self) -> list[str]:
        places = (sys.base_prefix, sysconfig.get_path("purelib"), str(Path(str(qworker.__file__)).resolve().parent))
        return ["sh", "-c", _LAYERS, "sh", str(self._folder), *places, SYSTEMD]

    def _find(self) -> int:
        assert self._process.poll() is None, "systemd did not start"
        text = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return int(text.split()[0]) if text.split() else 0

    def _is_up(self) -> bool:
        assert self._process.poll() is None, "systemd did not start"
        if Path(f"/proc/{self.pid}/comm").read_text().strip() != "systemd":  # it is the shell that mounts
            return False
        return self.run("systemctl", "is-system-running", check=False).strip() in {"running", "degraded"}

    def _furnish(self) -> None:
        python = f"/opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        command = self.root / "opt/bin/qworker"
        command.write_text(_COMMAND.format(python=python))
        command.chmod(0o755)
        self.run("useradd", "--system", "--no-create-home", "qworker")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.pid:
            os.kill(self.pid, 9)  # and with it everything in its PID namespace
        self._process.kill()
        self._process.wait()
        wait_until(lambda: _removed(self._group), "the control group is empty", 20.0)


def _mounts() -> list[tuple[str, str, list[str]]]:
    """Place, kind and options of everything that is mounted here."""
    rows = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [(row[1], row[2], row[3].split(",")) for row in rows]


def _cgroup2() -> str | None:
    return next((place for place, kind, _ in _mounts() if kind == "cgroup2"), None)


def _removed(group: Path) -> bool:
    """Whether the group and those below it are gone; they are busy for a moment after the last process has ended."""
    for inner in sorted(group.rglob("*/"), reverse=True):
        if inner.is_dir():
            try:
                inner.rmdir()
            except OSError:
                return False
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        time.sleep(0.05)
        return False
    return True
