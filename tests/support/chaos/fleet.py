"""Workers under supervision, as systemd would: whichever dies is started again, under another name.

One thread, the test's: it calls `turn` often, and kills in between. Every kill is written down for the judge before it
is done.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil

from ..worker import Worker
from .faults import Fault, Kill
from .hosts import Host

#: Processes of a killed worker have so long to follow it.
SURVIVAL_S = 15.0
#: What systemd's RestartSec would be.
RESTART_S = 0.1
_PULSE = Path(__file__).with_name("pulse.py")


def boottime() -> float:
    """The clock of the book."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Member:
    """One worker process of a fleet. `name` stands in the book; it is never used twice."""

    def __init__(
        self, folder: Path, name: str, arguments: Sequence[str], env: dict[str, str], host: Host | None
    ) -> None:
        self.name = name
        self.host = host
        if host is not None:
            arguments = (*arguments, "-b", host.url, "--result-backend", host.url)
        prefix = () if host is None else host.prefix
        self.worker = Worker(folder, *arguments, env=env | {"CHAOS_WORKER": name}, prefix=prefix)
        self.was_killed = False
        self.lost_its_boot = False  # its spawner was killed while it imported the application: it ends with 3
        self.gone_at: float | None = None

    def is_alive(self) -> bool:
        return self.worker.process.poll() is None

    def is_ready(self) -> bool:
        return _has(psutil.Process(self.worker.pid), "qworker: master running")


class Fleet:
    """So many workers, always; with `hosts` one on each. A context manager: leaving it kills what is left.

    `complaints` gathers what no book tells: workers that ended by themselves, processes that outlived their master.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        *arguments: str,
        env: dict[str, str] | None = None,
        hosts: Sequence[Host] = (),
        prefix: str = "w",
    ) -> None:
        self._folder = folder
        self._arguments = ("-A", "account", *arguments)
        self._env = env or {}
        self._prefix = prefix
        self._count = 0
        self._members: list[Member] = []
        self._dying: list[Member] = []
        self._restarts: list[tuple[float, Host | None]] = []
        self.faults: list[Fault] = []
        self.complaints: list[str] = []
        self.kills: dict[str, int] = {}
        self._pulse = subprocess.Popen([sys.executable, _PULSE, folder / "pulse.bin"], stdin=subprocess.DEVNULL)
        for number in range(size):
            self._start(hosts[number] if hosts else None)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._pulse.kill()
        self._pulse.wait()
        for member in (*self._members, *self._dying):
            member.worker.__exit__(None, None, None)

    @property
    def members(self) -> list[Member]:
        """Those that run, or did at the last turn."""
        return list(self._members)

    def wait_ready(self) -> None:
        for member in self._members:
            member.worker.wait_ready()

    def turn(self) -> None:
        """Notice the dead and start their successors."""
        for member in [m for m in self._members if not m.is_alive()]:
            self._members.remove(member)
            self._mourn(member)
            self._restarts.append((time.monotonic() + RESTART_S, member.host))
        while self._restarts and self._restarts[0][0] <= time.monotonic():
            self._start(self._restarts.pop(0)[1])
        for member in list(self._dying):
            self._watch(member)

    def kill(self, what: str, rng: random.Random, member: Member | None = None) -> bool:
        """Kill -9 the `master`, the `spawner`, a `child` or the whole `tree` of a worker; False if there was none."""
        alive = [one for one in self._members if one.is_alive() and member in (None, one)]
        if not alive:
            return False
        member = rng.choice(alive)
        victims = self._victims(member, what, rng)
        if not victims:
            return False
        is_whole = what in ("master", "tree")
        member.was_killed = member.was_killed or is_whole
        member.lost_its_boot = member.lost_its_boot or not member.is_ready()
        self.faults.append(Kill(boottime(), member.name, None if is_whole else victims[0].pid))
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                pass
        self.kills[what] = self.kills.get(what, 0) + 1
        return True

    def freeze(self, member: Member, *, whole: bool) -> list[psutil.Process]:
        """SIGSTOP its master, or all its processes; returns what to hand to `thaw`."""
        frozen = member.worker.tree() if whole else member.worker.tree()[:1]
        for process in frozen:
            process.suspend()
        return frozen

    def thaw(self, frozen: Sequence[psutil.Process]) -> None:
        """Let them go on, the children first: the master must not be quicker than what it has lost."""
        for process in reversed(frozen):
            process.resume()

    def end(self, how: signal.Signals) -> bool:
        """Signal one worker to leave, or kill it; another one is started in its place. False if there was none."""
        member = next((one for one in self._members if one.is_alive() and not one.was_killed), None)
        if member is None:
            return False
        member.was_killed = True  # that is: it does not end by itself
        if how != signal.SIGTERM:
            self.faults.append(Kill(boottime(), member.name))
        member.worker.signal(how)
        return True

    def stop(self, limit_s: float = 30.0) -> None:
        """Warm; whoever does not end with 0 is complained about."""
        for member in self._members:
            member.worker.signal(signal.SIGTERM)
        for member in self._members:
            code = member.worker.wait(limit_s)
            if code != 0:
                self.complaints.append(f"{member.name} ended its warm stop with {code}")
            member.gone_at = time.monotonic()
        self._dying += self._members
        self._members = []
        while any(member.worker.survivors() for member in self._dying):
            for member in list(self._dying):
                self._watch(member)
            time.sleep(0.02)
        for member in list(self._dying):
            self._watch(member)

    def _start(self, host: Host | None) -> None:
        self._count += 1
        self._members.append(Member(self._folder, f"{self._prefix}{self._count}", self._arguments, self._env, host))

    def _victims(self, member: Member, what: str, rng: random.Random) -> list[psutil.Process]:
        tree = member.worker.tree()
        if what == "master":
            return tree[:1]
        if what == "tree":
            rng.shuffle(tree)
            return tree
        if what == "spawner":
            return [p for p in tree if p.pid != member.worker.pid and _has(p, "qworker: spawner")]
        children = [p for p in tree if _has(p, "qworker: child")]
        return [rng.choice(children)] if children else []

    def _mourn(self, member: Member) -> None:
        member.gone_at = time.monotonic()
        code = member.worker.process.returncode
        if not member.was_killed and not (code == 3 and member.lost_its_boot):
            self.complaints.append(f"{member.name} ended by itself with {code}:\n{member.worker.log[-4000:]}")
        self._dying.append(member)

    def _watch(self, member: Member) -> None:
        assert member.gone_at is not None
        left = member.worker.survivors()
        if not left:
            self._dying.remove(member)
            if "Traceback" in member.worker.log:
                self.complaints.append(f"{member.name} wrote a traceback:\n{member.worker.log[-4000:]}")
            member.worker.__exit__(None, None, None)
        elif time.monotonic() > member.gone_at + SURVIVAL_S:
            self.complaints.append(f"{len(left)} processes of {member.name} outlived their master")
            for process in left:
                process.kill()


def _has(process: psutil.Process, title: str) -> bool:
    try:
        return title in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
