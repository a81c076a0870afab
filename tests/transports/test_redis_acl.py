"""The ACL lines of docs/redis.md: enough for everything that worker, producer and command line do, and for no more."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from qworker.core.errors import ConfigError, TransportError
from qworker.transports import Ack, Rejection, open_transport

from support import RedisServer, Shop
from support.messages import envelope, envelopes, numbers_of
from support.redis_server import all_redis
from support.waiting import wait_until

Open = Callable[..., Any]
PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "redis.md"


def lines() -> dict[str, str]:
    """The page's ACL lines by user."""
    found = re.findall(r"```acl\n(ACL SETUSER (\w+) .*)\n```", PAGE.read_text("utf-8"))
    return {user: line for line, user in found}


@pytest.fixture(params=all_redis(), ids=lambda executable: Path(executable).parent.as_posix())
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Of each version, with the page's users."""
    with RedisServer("--appendonly", "yes", executable=request.param) as server:
        with server.client() as behind:
            for line in lines().values():
                behind.execute_command(*shlex.split(line))
        yield server


def url(server: RedisServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:password@")


def denied(server: RedisServer) -> list[Any]:
    """What the server has refused to anybody."""
    with server.client() as behind:
        return [(entry["username"], entry["context"], entry["object"]) for entry in behind.acl_log()]


def test_the_page_has_a_line_for_each_role() -> None:
    assert set(lines()) == {"worker", "producer", "looker"}


def test_a_worker_and_its_producer_need_no_more(server: RedisServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        shop = Shop(tmp_path, url(server, "worker"), url(server, "worker"), stack)
        worker = shop.worker("-c", "2", "-Q", "hipri")
        shop.broker = server.url  # for looking behind the scenes
        shop.app.conf.update(broker_url=url(server, "producer"), result_backend=url(server, "producer"))
        assert shop.task("add").delay(2, 3).get(timeout=20) == 5
        assert shop.task("flaky").delay(1).get(timeout=20) == 1
        assert shop.task("add").apply_async((1,), countdown=0.3).get(timeout=20) == 1
        shop.task("once").delay("gone")
        (shop.folder / "gone").touch()
        shop.app.send_task("shop.unknown", queue="hipri")
        wait_until(lambda: len(shop.dead()) == 1, "the dead letter is there")
        wait_until(lambda: shop.in_flight() == 0, "everything is settled")
        assert "polled twice a second" not in worker.log
        assert worker.stop() == 0
        shop.app.close()
    assert denied(server) == []


def test_every_verb_is_allowed_to_a_worker(server: RedisServer, open_redis: Open) -> None:
    ours = open_redis("w/1", url=url(server, "worker"), client_name="me", lease_s=1.0)
    doomed = open_redis("w/2", url=url(server, "worker"), lease_s=1.0)
    ours.publish([*envelopes(8), envelope(8, due=9e9)])
    doomed.reserve(["hipri"], 1)
    held = ours.reserve(["hipri"], 5, arm=True)
    ours.mark_started(held[:1])
    assert ours.ack([Ack(held[0], [envelope(9, "next")])]).done == 1
    assert ours.requeue(held[1:2]).done == 1
    assert ours.requeue(held[2:3], crashed=True, due=9e9).done == 1
    assert ours.reject([Rejection(held[3], "test")]).done == 1
    assert list(ours.extend(held[4:]).lost) == []
    assert ours.recall([held[4].tag]) == []
    (letter,) = ours.dead_letters()
    assert ours.requeue_dead([letter.token]) == 1
    assert ours.purge_dead(["none"]) == 0
    assert ours.depths(["hipri", "next"])["next"] == 1

    def has_recovered() -> bool:
        ours.extend([])
        return bool(ours.maintain().recovered)

    wait_until(has_recovered, "the dead worker's message is recovered")
    assert ours.warnings() == []
    assert ours.purge(["hipri", "next"]) > 0
    ours.close()
    assert denied(server) == []


def test_who_only_looks_may_not_touch(server: RedisServer, open_redis: Open) -> None:
    open_redis(url=url(server, "producer")).publish(envelopes(2))
    looker = open_redis(url=url(server, "looker"))
    assert looker.depths(["hipri"]) == {"hipri": 2}
    assert looker.dead_letters() == []
    assert denied(server) == []
    with pytest.raises(TransportError, match=r"NOPERM.*extend its ACL, docs/redis\.md has a line for it"):
        looker.publish(envelopes(1))
    with pytest.raises(ConfigError, match="extend its ACL"):
        open_redis("w/1", url=url(server, "looker"))


@pytest.mark.parametrize("user", ["worker", "producer", "looker"])
@pytest.mark.parametrize(
    "command", ["FLUSHALL", "KEYS *", "CONFIG SET maxmemory 1", "SHUTDOWN", "ACL LIST", "SLOWLOG RESET"]
)
def test_no_user_may_harm_the_server(server: RedisServer, user: str, command: str) -> None:
    with server.client(username=user, password="password") as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_a_prefix_keeps_two_applications_apart(server: RedisServer, open_redis: Open) -> None:
    line = (
        lines()["worker"]
        .replace("SETUSER worker", "SETUSER tenant")
        .replace("~*", "~shop:*")
        .replace("&qworker:*", "&shop:*")
    )
    with server.client() as behind:
        behind.execute_command(*shlex.split(line))
        ours = open_redis("w/1", url=url(server, "tenant"), global_keyprefix="shop:")
        assert ours.reserve(["hipri"], 1, arm=True) == []
        ours.publish([*envelopes(2), envelope(2, due=9e9)])
        assert numbers_of(ours.reserve(["hipri"], 9)) == [0, 1]
        assert [key for key in behind.keys("*") if not key.startswith(b"shop:")] == []
    assert denied(server) == []
    transport = open_transport(url(server, "tenant"), options={"global_keyprefix": "other:"}, owner="w/2")
    with pytest.raises(ConfigError, match="extend its ACL"):
        transport.connect()


@pytest.mark.parametrize("executable", all_redis())
def test_a_login_works_over_a_unix_socket(tmp_path: Path, open_redis: Open, executable: str) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer("--unixsocket", str(path), executable=executable) as server:
        with server.client() as behind:
            behind.execute_command(*shlex.split(lines()["worker"]))
        ours = open_redis("w/1", url=f"redis+socket://worker:password@{path}?virtual_host=1")
        ours.publish(envelopes(1))
        assert numbers_of(ours.reserve(["hipri"], 1)) == [0]
        with server.client() as behind:
            users = {client["user"] for client in behind.client_list() if client["db"] == "1"}
        assert users == {"worker"}
