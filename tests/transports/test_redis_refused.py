"""What people are told when Redis cannot be reached, or refuses them."""

from __future__ import annotations

import pytest

from qworker.core.errors import ConfigError, TransportError
from qworker.transports import open_transport

from support import RedisServer
from support.messages import envelopes
from support.redis_server import free_port


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    url = f"redis://shop:s3cret@127.0.0.1:{free_port()}/0"
    with pytest.raises(TransportError, match="cannot be reached: Connection refused") as caught:
        open_transport(url).connect()
    assert "127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_wrong_password_is_said_to_be_one(own_server: RedisServer) -> None:
    with own_server.client() as behind:
        behind.config_set("requirepass", "right")
    with pytest.raises(ConfigError, match=r"WRONGPASS.*is wrong; correct it") as caught:
        open_transport(own_server.url.replace("//", "//:wr0ng@")).connect()
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"NOAUTH.*wants a password; write it"):
        open_transport(own_server.url).connect()
    transport = open_transport(own_server.url.replace("//", "//:right@"))
    transport.publish(envelopes(1))
    transport.close()


def test_a_password_that_nobody_asked_for_is_said_to_be_one(redis_url: str) -> None:
    with pytest.raises(ConfigError, match="no password; take it out") as caught:
        open_transport(redis_url.replace("//", "//:s3cret@"), owner="w/1").connect()
    assert "s3cret" not in str(caught.value)


def test_a_database_that_does_not_exist_is_said_so(redis_url: str) -> None:
    with pytest.raises(ConfigError, match="no such database"):
        open_transport(redis_url.removesuffix("0") + "9999").connect()


@pytest.mark.parametrize(
    "rights",
    [{"keys": ["other:*"], "commands": ["+@all"]}, {"keys": ["*"], "commands": ["+@all", "-zadd"]}],
    ids=["key", "command"],
)
def test_a_user_who_may_not_do_it_is_told_so(own_server: RedisServer, rights: dict[str, list[str]]) -> None:
    with own_server.client() as behind:
        behind.acl_setuser("shop", enabled=True, passwords=["+s3cret"], **rights)
    with pytest.raises(ConfigError, match="extend its ACL") as caught:
        open_transport(own_server.url.replace("//", "//shop:s3cret@"), owner="w/1").connect()
    assert "s3cret" not in str(caught.value)
