"""A real Sentinel set for tests: a master, replicas, and sentinels that watch them, all on free loopback ports."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from .redis_server import RedisServer, free_port, newest_redis
from .waiting import wait_until

NAME = "shop"
#: A sentinel that stood still for two seconds does nothing for half a minute.
_LIMIT_S = 70
#: A server that is silent for so long is given up: never, while a test only waits for a processor; and soon, when told.
_PATIENT_MS, _HASTY_MS = 600_000, 700


class Sentinel:
    """One redis-sentinel that watches `master`. `password` is what it wants from its clients.

    With `tls`, a redis-server's arguments, it speaks nothing else, and watches the port of the master that does.
    """

    def __init__(
        self,
        master: RedisServer,
        quorum: int,
        *,
        password: str = "",
        master_password: str = "",
        tls: Sequence[str] = (),
        watched_port: int = 0,
    ) -> None:
        self.port = free_port()
        self._password = password
        self._folder = tempfile.TemporaryDirectory(prefix="qworker-sentinel-")
        lines = [
            f"port {0 if tls else self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor {NAME} 127.0.0.1 {watched_port or master.port} {quorum}",
            f"sentinel down-after-milliseconds {NAME} {_PATIENT_MS}",
            f"sentinel failover-timeout {NAME} 3000",
            *([f"sentinel auth-pass {NAME} {master_password}"] if master_password else []),
            *([f"requirepass {password}"] if password else []),
            *([f"tls-port {self.port}", "tls-replication yes"] if tls else []),
            *(f"{name.removeprefix('--')} {value}" for name, value in zip(tls[::2], tls[1::2], strict=True)),
        ]
        config = Path(self._folder.name) / "sentinel.conf"
        config.write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(
            [newest_redis(), str(config), "--sentinel"],
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def client(self) -> Any:
        return redis.Redis(port=self.port, password=self._password or None)

    def others(self) -> int:
        """How many other sentinels it knows."""
        return self._asked("num-other-sentinels")

    def replicas(self) -> int:
        """How many replicas it knows."""
        return self._asked("num-slaves")

    def master_port(self) -> int:
        """Where it says that the master is; 0 when it does not answer."""
        try:
            with self.client() as client:
                found = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        except redis.RedisError:
            return 0
        return int(found[1])

    def hurry(self, does: bool) -> None:
        """Have it give up a silent server soon, or not."""
        with self.client() as client:
            client.execute_command(
                "SENTINEL", "SET", NAME, "down-after-milliseconds", _HASTY_MS if does else _PATIENT_MS
            )

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()

    def _asked(self, field: str) -> int:
        try:
            with self.client() as client:
                found = client.execute_command("SENTINEL", "MASTER", NAME)
        except redis.RedisError:
            return -1
        pairs = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
        return int(pairs.get(field, pairs.get(field.encode(), -1)))


class SentinelSet:
    """Servers (the first is the master) and sentinels that know each other. A context manager.

    `careful` servers take writes only while a replica is connected (min-replicas-to-write 1): with two replicas, one
    server may die.
    """

    def __init__(
        self,
        *,
        replicas: int = 1,
        sentinels: int = 3,
        password: str = "",
        sentinel_password: str = "",
        careful: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        self._arguments = [*arguments, *(("--min-replicas-to-write", "1") if careful else ())]
        self._replicas = replicas
        self._sentinels = sentinels
        self._password = password
        self._sentinel_password = sentinel_password
        self._stack = ExitStack()
        self.servers: list[RedisServer] = []
        self.sentinels: list[Sentinel] = []

    @property
    def url(self) -> str:
        login = f":{self._password}@" if self._password else ""
        return ";".join(f"sentinel://{login}127.0.0.1:{sentinel.port}/0" for sentinel in self.sentinels)

    @property
    def options(self) -> dict[str, Any]:
        own = {"sentinel_kwargs": {"password": self._sentinel_password}} if self._sentinel_password else {}
        return {"master_name": NAME, **own}

    def client(self, server: RedisServer) -> Any:
        return server.client(password=self._password or None)

    def master(self) -> RedisServer:
        """The server that the sentinels name."""
        ports = {sentinel.master_port() for sentinel in self.sentinels} - {0}
        return next(server for server in self.servers if server.port in ports)

    def fail_over(self) -> RedisServer:
        """Kill the master, and wait until another one takes writes; returns that one."""
        before = self.master()
        before.stop()
        return self.give_up(before)

    def give_up(self, silent: RedisServer) -> RedisServer:
        """Wait until another one than the silent master takes writes; returns that one."""
        for sentinel in self.sentinels:
            sentinel.hurry(True)
        wait_until(lambda: self._new_master(silent), "another server has been promoted", _LIMIT_S)
        for sentinel in self.sentinels:
            sentinel.hurry(False)
        return self.master()

    def switch(self) -> RedisServer:
        """Have the sentinels exchange the roles of two living servers; returns the new master."""
        before = self.master()
        with self.sentinels[0].client() as client:
            wait_until(lambda: _accepted(client), "the sentinel accepts a failover", _LIMIT_S)
        wait_until(lambda: self._new_master(before), "another server has been promoted", _LIMIT_S)
        with self.client(before) as client:
            wait_until(lambda: not client.info("replication")["connected_slaves"], "the old one knows it", _LIMIT_S)
        return self.master()

    def _new_master(self, before: RedisServer) -> bool:
        ports = {sentinel.master_port() for sentinel in self.sentinels} - {0}
        if len(ports) != 1 or before.port in ports:
            return False
        with self.client(self.master()) as client:
            return bool(client.role()[0] == b"master")

    def __enter__(self) -> SentinelSet:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def _start(self) -> None:
        lock = ("--requirepass", self._password, "--masterauth", self._password) if self._password else ()
        for number in range(1 + self._replicas):
            follow = ("--replicaof", "127.0.0.1", str(self.servers[0].port)) if number else ()
            every = ("--repl-diskless-sync-delay", "0", *self._arguments)
            server = RedisServer(*every, *lock, *follow, password=self._password)
            self.servers.append(self._stack.enter_context(server))
        quorum = self._sentinels // 2 + 1
        for _ in range(self._sentinels):
            sentinel = Sentinel(
                self.servers[0], quorum, password=self._sentinel_password, master_password=self._password
            )
            self._stack.callback(sentinel.close)
            self.sentinels.append(sentinel)
        with self.client(self.servers[0]) as client:
            wait_until(lambda: client.wait(self._replicas, 100) == self._replicas, "the replicas are in step", 20)
        for sentinel in self.sentinels:
            wait_until(lambda s=sentinel: s.others() == self._sentinels - 1, "the sentinels know each other", 30)  # type: ignore[misc]
            wait_until(lambda s=sentinel: s.replicas() == self._replicas, "the sentinels know the replicas", 30)  # type: ignore[misc]


def _accepted(client: Any) -> bool:
    try:
        client.execute_command("SENTINEL", "FAILOVER", NAME)
    except redis.ResponseError:  # not yet: it has just done one
        return False
    return True
