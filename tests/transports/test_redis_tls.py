"""`rediss://`: verified by default, every option of redis-py's, and errors that say what to do."""

from __future__ import annotations

import select
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qworker import App
from qworker.core.errors import ConfigError, ResultStoreError, TransportError
from qworker.results import StoredResult, open_result_store
from qworker.transports import Ack, Envelope, open_transport

from support import RedisServer
from support.messages import envelopes, numbers_of
from support.redis_server import free_port
from support.sentinels import NAME, Sentinel
from support.tls_front import CERTIFICATE, FOLDER, has_tls, tls_server
from support.waiting import wait_until

Open = Callable[..., Any]
AUTHORITY = str(FOLDER / "ca.pem")
CA = f"ssl_ca_certs={AUTHORITY}"
CLIENT = {"ssl_certfile": str(FOLDER / "client.pem"), "ssl_keyfile": str(FOLDER / "client.key")}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with tls_server() as port:
        yield port


@pytest.fixture(scope="module")
def strict_port() -> Iterator[int]:
    """Wants a client certificate."""
    with tls_server(wants_client_certificate=True) as port:
        yield port


def test_a_server_of_a_trusted_authority_is_used(port: int, open_redis: Open) -> None:
    ours = open_redis("w/1", url=f"rediss://localhost:{port}/0?{CA}")
    assert ours.reserve(["hipri"], 9, arm=True) == []
    ours.publish(envelopes(3))
    assert select.select([ours.wake_fd()], [], [], 5)[0]
    ours.drain_wake()
    taken = ours.reserve(["hipri"], 9)
    assert numbers_of(taken) == [0, 1, 2]
    assert ours.ack([Ack(delivery) for delivery in taken]).done == 3


def test_large_messages_pass_through_tls(port: int, open_redis: Open) -> None:
    ours = open_redis("w/1", url=f"rediss://localhost:{port}/1?{CA}")
    raw = b"x" * 3_000_000
    ours.publish([Envelope("hipri", raw)])
    (taken,) = ours.reserve(["hipri"], 1)
    assert taken.raw == raw
    ours.ack([Ack(taken)])


@pytest.mark.parametrize(
    "options",
    [
        {"ssl_ca_data": Path(AUTHORITY).read_text("ascii")},
        {"ssl_ca_certs": AUTHORITY, "ssl_min_version": "TLSv1.2"},
        {"ssl_ca_certs": AUTHORITY, "ssl_min_version": ssl.TLSVersion.TLSv1_3},
        {"ssl_ca_certs": AUTHORITY, "ssl_min_version": 0x0303, "ssl_ciphers": "ECDHE+AESGCM"},
        {"ssl_ca_certs": AUTHORITY, "ssl_cert_reqs": ssl.CERT_REQUIRED},
        {"ssl_ca_certs": AUTHORITY, "ssl_cert_reqs": "CERT_OPTIONAL", "ssl_check_hostname": True},
        {"ssl_cert_reqs": "none"},
        {"ssl_cert_reqs": ssl.CERT_NONE},
        {"ssl_cert_reqs": 0, "ssl_check_hostname": True},
    ],
    ids=str,
)
def test_each_option_of_redis_py_has_its_effect(port: int, open_redis: Open, options: dict[str, Any]) -> None:
    open_redis(url=f"rediss://localhost:{port}/0", **options)


@pytest.mark.parametrize("word", ["CERT_NONE", "none", "cert_none", "None"])
def test_the_url_takes_celery_s_words(port: int, open_redis: Open, word: str) -> None:
    open_redis(url=f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs={word}")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl: it names the file")
def test_a_folder_of_authorities_is_looked_into(port: int, open_redis: Open, tmp_path: Path) -> None:
    command = ["openssl", "x509", "-in", AUTHORITY, "-noout", "-hash"]
    name = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    (tmp_path / f"{name}.0").write_bytes(Path(AUTHORITY).read_bytes())
    open_redis(url=f"rediss://localhost:{port}/0?ssl_ca_path={tmp_path}")


def test_an_unknown_authority_is_refused(port: int, open_redis: Open) -> None:
    with pytest.raises(TransportError, match=r"(?i)certificate verify failed.*set ssl_ca_certs to the file"):
        open_redis(url=f"rediss://localhost:{port}/0")


def test_another_host_s_certificate_is_refused(port: int, open_redis: Open) -> None:
    with pytest.raises(TransportError, match=r"(?i)certificate.*ssl_check_hostname=false"):
        open_redis(url=f"rediss://127.0.0.1:{port}/0?{CA}")
    open_redis(url=f"rediss://127.0.0.1:{port}/0?{CA}&ssl_check_hostname=false")


@pytest.mark.parametrize(
    "options",
    [
        CLIENT,
        {**CLIENT, "ssl_keyfile": str(FOLDER / "client.locked.key"), "ssl_password": "open-sesame"},
    ],
    ids=["open", "locked"],
)
def test_a_client_certificate_is_shown(strict_port: int, open_redis: Open, options: dict[str, str]) -> None:
    url = f"rediss://localhost:{strict_port}/0?{CA}"
    with pytest.raises(TransportError, match=r"want(s)? a client certificate.*ssl_certfile"):
        open_redis(url=url)
    open_redis(url=url, **options)
    query = "&".join(f"{name}={value}" for name, value in options.items())
    open_redis(url=f"{url}&{query}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ssl_ca_certs": "/nowhere/ca.pem"}, "ssl_ca_certs=/nowhere/ca.pem: No such file or directory; correct"),
        ({"ssl_ca_certs": str(FOLDER / "README")}, "a file in PEM format is wanted"),
        ({"ssl_ca_data": "no certificate"}, "ssl_ca_data"),
        ({"ssl_certfile": "/nowhere/me.pem"}, "ssl_certfile=/nowhere/me.pem: No such file or directory"),
        ({**CLIENT, "ssl_keyfile": str(FOLDER / "server.key")}, "ssl_keyfile does not belong to ssl_certfile"),
        ({**CLIENT, "ssl_keyfile": str(FOLDER / "client.locked.key")}, "ssl_password does not open"),
        (
            {**CLIENT, "ssl_keyfile": str(FOLDER / "client.locked.key"), "ssl_password": "s3cret"},
            "ssl_password does not open",
        ),
        ({"ssl_ciphers": "ENIGMA"}, "ssl_ciphers=ENIGMA names no usable cipher"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_what_is_wrong_on_this_side_is_a_mistake_of_the_configuration(
    port: int, open_redis: Open, options: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_redis(url=f"rediss://localhost:{port}/0", **options)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ssl_cert_reqs": "maybe"}, "CERT_REQUIRED"),
        ({"ssl_min_version": "SSLv3"}, "'TLSv1.2' or 'TLSv1.3'"),
        ({"ssl_check_hostname": "perhaps"}, "True or False"),
        ({"ssl_cacerts": "x"}, "'ssl_ca_certs'"),
    ],
)
def test_a_wrong_option_is_told_before_anything_connects(options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_transport("rediss://localhost", options=options)
    assert said in str(caught.value)


def test_a_server_without_tls_is_said_to_have_none(redis_url: str, open_redis: Open) -> None:
    with pytest.raises(TransportError, match="not speak TLS on this port; write redis://"):
        open_redis(url=redis_url.replace("redis:", "rediss:"), socket_timeout=0.3)


def test_a_server_that_speaks_tls_only_is_said_to(port: int, open_redis: Open) -> None:
    with pytest.raises(TransportError, match="if it speaks TLS only, write rediss://"):
        open_redis(url=f"redis://localhost:{port}/0")


def test_tls_that_was_asked_for_is_never_left_out(port: int, open_redis: Open, redis_url: str) -> None:
    open_redis(url=f"redis://localhost:{port}/0", ssl_ca_certs=AUTHORITY)
    open_redis(url=f"redis://localhost:{port}/0?{CA}")
    with pytest.raises(TransportError, match="may not speak TLS"):
        open_redis(url=redis_url, ssl_cert_reqs="required", socket_timeout=0.3)
    with pytest.raises(ConfigError, match="a unix socket, which knows no TLS"):
        open_transport("redis+socket:///run/redis.sock", options={"ssl_cert_reqs": "required"})


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_broker_use_ssl_is_honoured(port: int, scheme: str) -> None:
    use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": AUTHORITY}
    with App("shop", broker=f"{scheme}://localhost:{port}/2", broker_use_ssl=use_ssl) as app:
        app.send_task("x")
    app = App("shop", broker=f"{scheme}://localhost:{port}/2", broker_use_ssl=True)
    with app, pytest.raises(TransportError, match="set ssl_ca_certs"):
        app.send_task("x")


def test_broker_use_ssl_that_is_neither_yes_nor_no_nor_a_dict_is_a_mistake() -> None:
    app = App("shop", broker="redis://localhost", broker_use_ssl="yes")
    with app, pytest.raises(ConfigError, match="broker_use_ssl must be True, False, or a dict"):
        app.send_task("x")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_results_are_kept_over_tls(port: int, scheme: str) -> None:
    settings = {"redis_backend_use_ssl": {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": AUTHORITY}}
    store = open_result_store(f"{scheme}://localhost:{port}/3", settings=settings)
    assert store is not None
    store.store([StoredResult("a", b'{"status": "SUCCESS"}', True)])
    assert store.wait("a", 5) == b'{"status": "SUCCESS"}'
    store.close()
    store = open_result_store(f"rediss://localhost:{port}/3", settings={})
    assert store is not None
    with pytest.raises(ResultStoreError, match="set ssl_ca_certs"):
        store.fetch("a")


def test_sentinels_and_master_speak_tls_each_in_its_own_way(open_redis: Open) -> None:
    if not has_tls():
        pytest.skip("needs a redis-server that was built with TLS")
    port = free_port()
    use = {"ssl": True, "ssl_ca_certs": AUTHORITY, "ssl_check_hostname": False}
    with RedisServer("--tls-port", str(port), *CERTIFICATE) as master:
        sentinel = Sentinel(master, 1, tls=CERTIFICATE, watched_port=port)
        url = f"sentinel://127.0.0.1:{sentinel.port}"
        try:
            secure = {"master_name": NAME, "sentinel_kwargs": {**use, **CLIENT}, **use, **CLIENT}

            def works() -> bool:
                try:
                    open_redis("w/1", url=url, **secure)
                except TransportError:
                    return False
                return True

            wait_until(works, "the sentinel answers")
            with pytest.raises(TransportError, match="if it speaks TLS only"):
                open_redis("w/1", url=url, master_name=NAME, **use, **CLIENT)
        finally:
            sentinel.close()
