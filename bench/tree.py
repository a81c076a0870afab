"""A worker and everything it started, measured as one: a tool gains nothing by moving its work to another process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil


class WorkerFailed(Exception):
    """A worker left or stood still when it should have worked; the text holds the end of its log."""


class Tree:
    """One running worker process with its descendants. Use as a context manager; it is stopped at the end."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as stream:
            self.started_at = time.monotonic()
            self.popen = subprocess.Popen(
                command, env=dict(env), cwd=cwd, stdout=stream, stderr=stream, start_new_session=True
            )
        self._root = psutil.Process(self.popen.pid)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.popen.poll() is None:
            self.stop()

    def processes(self) -> Iterator[psutil.Process]:
        """Yield the live processes of the tree, the root first."""
        try:
            yield from [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            raise self.failure("left") from None

    def cpu_s(self) -> float:
        """Processor seconds of all live processes, since each began."""
        total = 0.0
        for process in self.processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def pss_mb(self) -> float:
        """Proportional set size of the whole tree in MB (10^6 bytes): shared pages counted once."""
        total = 0
        for process in self.processes():
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total / 1e6

    def stop(self, limit_s: float = 15.0) -> float:
        """Send TERM to the root and wait; return the seconds it took. What is left after the limit is killed."""
        family = list(self.processes())
        begin = time.monotonic()
        self.popen.terminate()
        try:
            self.popen.wait(limit_s)
        except subprocess.TimeoutExpired:
            pass
        took_s = time.monotonic() - begin
        for process in family:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                process.kill()
        self.popen.wait(5)
        return took_s

    def failure(self, what: str) -> WorkerFailed:
        """Return an exception that says what went wrong, with the last lines of the worker's log."""
        tail = "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-15:])
        return WorkerFailed(f"the worker {what}; its log ends with:\n{tail}")
