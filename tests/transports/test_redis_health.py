"""What a server's settings mean for messages: warned about, or refused when it cannot be a broker at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qworker.core.errors import ConfigError

from support import RedisServer
from support.proxy import Proxy

Open = Callable[..., Any]


def warned(open_redis: Open, server: RedisServer) -> list[str]:
    found: list[str] = open_redis("w/1", url=server.url).warnings()
    return found


@pytest.mark.parametrize(("policy", "lost"), [("allkeys-lru", "whole queues"), ("volatile-ttl", "stored results")])
def test_a_server_that_evicts_is_warned_about(open_redis: Open, policy: str, lost: str) -> None:
    with RedisServer("--appendonly", "yes", "--maxmemory-policy", policy) as server:
        (warning,) = warned(open_redis, server)
    assert policy in warning
    assert lost in warning
    assert "set maxmemory-policy noeviction" in warning


def test_a_server_that_writes_nothing_to_disk_is_warned_about(open_redis: Open) -> None:
    with RedisServer("--save", "") as server:
        (warning,) = warned(open_redis, server)
    assert "loses every message; set appendonly yes" in warning


def test_an_append_only_file_that_is_never_synced_is_warned_about(open_redis: Open) -> None:
    with RedisServer("--appendonly", "yes", "--appendfsync", "no") as server:
        (warning,) = warned(open_redis, server)
    assert "set appendfsync everysec" in warning


@pytest.mark.parametrize("arguments", [("--appendonly", "yes"), ("--save", "60", "1")], ids=["aof", "snapshots"])
def test_a_server_that_keeps_what_it_has_is_not_warned_about(open_redis: Open, arguments: tuple[str, ...]) -> None:
    with RedisServer(*arguments) as server:
        assert warned(open_redis, server) == []


def test_a_server_that_hides_its_settings_is_warned_about_as_far_as_it_shows(open_redis: Open) -> None:
    with RedisServer("--save", "", "--maxmemory-policy", "allkeys-lru") as server:
        with server.client() as behind:
            behind.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-config"])
        (warning,) = warned(open_redis, server)
        assert "allkeys-lru" in warning
        with server.client() as behind:
            behind.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-config", "-info"])
        assert warned(open_redis, server) == []


def test_the_password_is_not_in_a_warning(open_redis: Open, own_server: RedisServer) -> None:
    with own_server.client() as behind:
        behind.config_set("requirepass", "s3cret")
    (warning,) = open_redis("w/1", url=own_server.url.replace("//", "//:s3cret@")).warnings()
    assert "127.0.0.1" in warning
    assert "s3cret" not in warning


def test_a_node_of_a_cluster_is_refused(open_redis: Open) -> None:
    with RedisServer("--cluster-enabled", "yes") as server, pytest.raises(ConfigError, match="Redis Cluster"):
        open_redis("w/1", url=server.url)


def test_a_server_that_is_too_old_is_refused(open_redis: Open, proxy: Proxy) -> None:
    """Seen through a proxy that makes a new one look old."""
    proxy.rewrite(rb"redis_version:\d+\.\d+", b"redis_version:6.0")
    with pytest.raises(ConfigError, match=r"is Redis 6\.0.*too old; use Redis 6\.2 or later"):
        open_redis("w/1", url=proxy.url)
    open_redis(url=proxy.url)  # a producer needs nothing that is new
