"""A real server brought into the states in which it refuses: full, a replica, unable to save, busy, loading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .redis_server import RedisServer, all_redis, free_port, version_of
from .waiting import wait_until

#: A server's arguments for `loading`. Before version 7 the command DEBUG is there without asking.
MAY_LOAD_SLOWLY: tuple[str, ...] = ("--save", "3600", "1000000", "--key-load-delay", "0")
if any(version_of(executable) >= (7,) for executable in all_redis()):
    MAY_LOAD_SLOWLY += ("--enable-debug-command", "yes")
    # While it loads, it looks at its connections after every so many bytes of its file (without being told: 2 MiB).
    MAY_LOAD_SLOWLY += ("--loading-process-events-interval-bytes", str(1 << 18))


@contextmanager
def full(server: RedisServer) -> Iterator[None]:
    """OOM: no memory for another byte."""
    with server.client() as behind:
        behind.config_set("maxmemory", "1")
        yield
        behind.config_set("maxmemory", "0")


@contextmanager
def replica(server: RedisServer) -> Iterator[None]:
    """READONLY: of a master that does not exist."""
    with server.client() as behind:
        behind.replicaof("127.0.0.1", free_port())
        yield
        behind.replicaof("NO", "ONE")


@contextmanager
def unable_to_save(server: RedisServer) -> Iterator[None]:
    """MISCONF: where its file belongs there is a folder."""
    obstacle = server.folder / "dump.rdb"
    with server.client() as behind:
        obstacle.mkdir()
        behind.config_set("save", "3600 1000000")
        behind.set("changed", 1)
        behind.bgsave()
        wait_until(lambda: behind.info("persistence")["rdb_last_bgsave_status"] == "err", "the save has failed")
        yield
        obstacle.rmdir()
        behind.bgsave()
        wait_until(lambda: behind.info("persistence")["rdb_last_bgsave_status"] == "ok", "the save has worked")


@contextmanager
def busy(server: RedisServer) -> Iterator[None]:
    """BUSY: with a script that never ends."""
    with server.client() as behind, server.client(socket_timeout=None) as culprit:
        behind.config_set("lua-time-limit", 50)
        connection = culprit.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", 0)
        wait_until(lambda: _refusal(behind).startswith("BUSY"), "the server is busy")
        yield
        behind.script_kill()
        connection.disconnect()


@contextmanager
def loading(server: RedisServer) -> Iterator[None]:
    """LOADING: started again with data that take long to load; `server` was started with `MAY_LOAD_SLOWLY`."""
    with server.client() as behind:
        behind.set("filler:0", 0)
        behind.config_set("rdbcompression", "no")
        behind.execute_command("DEBUG", "POPULATE", "24000", "filler", "1000")
        behind.save()
    server.restart("--key-load-delay", "500", wait=False)
    with server.client(retry=Retry(NoBackoff(), 0)) as behind:
        wait_until(lambda: _refusal(behind).startswith("LOADING"), "the server is loading")
        yield
        behind.config_set("key-load-delay", 0)  # the rest goes quickly
        wait_until(lambda: _refusal(behind) == "", "the server has loaded", 40)


REFUSALS: dict[str, Callable[[RedisServer], AbstractContextManager[None]]] = {
    "OOM": full,
    "READONLY": replica,
    "MISCONF": unable_to_save,
    "BUSY": busy,
}


def _refusal(behind: redis.Redis) -> str:
    try:
        behind.execute_command("PING")
    except redis.BusyLoadingError as error:
        return f"LOADING {error}"
    except redis.ResponseError as error:
        return str(error)
    except redis.RedisError:
        return "unreachable"
    return ""
