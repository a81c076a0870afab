"""Real worker processes for tests: started as a user would, watched through their log, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from .waiting import wait_until


class Worker:
    """One `qworker` process in its own session, its log in a file. A context manager: leaving it kills what is left.

    `prefix` is a command that ends by executing the rest of its arguments.
    """

    def __init__(
        self, folder: Path, *arguments: str, env: dict[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self.log_path = folder / f"worker-{time.monotonic_ns()}.log"
        self._log = self.log_path.open("wb")
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "qworker", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONWARNINGS": "error,ignore::ResourceWarning"} | (env or {}),
            start_new_session=True,
        )
        self._seen: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_ready(self, limit_s: float = 20.0) -> Worker:
        """Wait until the master's title says that it runs (the log may be told to be silent)."""
        master = psutil.Process(self.pid)
        try:
            wait_until(lambda: "qworker: master running" in " ".join(_cmdline(master)), "worker ready", limit_s)
        except AssertionError:
            raise AssertionError(f"the worker did not become ready:\n{self.log}") from None
        assert self.process.poll() is None, f"the worker ended instead of becoming ready:\n{self.log}"
        self.tree()
        return self

    def wait_log(self, text: str, limit_s: float = 20.0, times: int = 1) -> None:
        """Wait until the log holds `text` (`times` times) in lines that are written to their ends."""
        try:
            wait_until(lambda: self.log.rpartition("\n")[0].count(text) >= times, f"log line {text!r}", limit_s)
        except AssertionError:
            raise AssertionError(f"no {text!r} in the log:\n{self.log}") from None

    def signal(self, number: signal.Signals) -> None:
        self.tree()
        self.process.send_signal(number)

    def wait(self, limit_s: float = 20.0) -> int:
        """Wait for the end; returns the exit code."""
        try:
            wait_until(lambda: self.process.poll() is not None, "the worker has ended", limit_s)
        except AssertionError:
            raise AssertionError(f"the worker did not end within {limit_s} s:\n{self.log}") from None
        return self.process.wait()

    def stop(self, limit_s: float = 20.0) -> int:
        """TERM, then wait."""
        self.signal(signal.SIGTERM)
        return self.wait(limit_s)

    def kill_whole(self) -> None:
        """End all of its processes as a power cut does: none of them sees another one die."""
        tree = self.tree()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in tree:
                with suppress(psutil.NoSuchProcess):  # it has just ended by itself
                    process.send_signal(number)
        self.process.wait()

    def tree(self) -> list[psutil.Process]:
        """The worker's processes that live now; remembered, so that none can get lost by changing its parent."""
        try:
            found = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            found = []
        for process in found:
            self._seen.setdefault(process.pid, process)
        return found

    def children(self) -> list[psutil.Process]:
        """The processes that run tasks, by their titles."""
        return [p for p in self.tree() if "qworker: child" in " ".join(_cmdline(p))]

    def spawner(self) -> psutil.Process:
        """The process that forks the children."""
        return next(p for p in self.tree() if "qworker: spawner" in " ".join(_cmdline(p)))

    def spawners(self) -> list[psutil.Process]:
        """Every process that forks children: while the code is reloaded there are several."""
        return [p for p in self.tree()[1:] if _parent(p) == self.pid and "qworker: spawner" in " ".join(_cmdline(p))]

    def forked(self) -> list[psutil.Process]:
        """All children, also those that boot and have no title of their own yet."""
        spawners = {spawner.pid for spawner in self.spawners()}
        return [p for p in self.tree() if _parent(p) in spawners]

    def survivors(self) -> list[psutil.Process]:
        """Processes of this worker that still run (zombies do not)."""
        return [process for process in self._seen.values() if is_alive(process)]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.tree()
        ended_by_test = self.process.poll() is not None
        if not ended_by_test:
            self.process.kill()
            self.process.wait()
        self._log.close()
        try:
            wait_until(lambda: not self.survivors(), "no process of the worker survives its master")
        finally:
            for process in self.survivors():
                process.kill()
        sys.stderr.write(f"--- log of worker {self.pid}\n{self.log}\n")  # pytest shows it when the test has failed


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return 0
