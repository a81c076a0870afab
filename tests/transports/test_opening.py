"""URLs and options: what opens which adapter, and what people are told about their mistakes."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qworker.core.errors import ConfigError, QWorkerError
from qworker.transports import open_transport, read_url


def problems(url: str, **options: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        open_transport(url, options=options)
    return caught.value.problems


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://localhost",
        "redis://localhost:6380/3",
        "redis://:pass@localhost:6379//",
        "redis://user:p%40ss@[::1]:6379/0?socket_timeout=2",
        "REDIS://localhost",
        "rediss://localhost:6380/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/etc/ca.pem",
        "redis+socket:///run/redis.sock",
        "redis+socket:///run/redis.sock?virtual_host=3",
        "redis+socket://user:pass@/run/redis.sock?virtual_host=3",
        "sentinel://:pass@a:26379;sentinel://b/0?master_name=m",
        "sqlite:///relative.db",
        "sqlite:////tmp/absolute.db?synchronous=normal",
        "sqs://",
        "sqs://key:s3cret@",
        "sqs://key:s3c%2Fret@localhost:9324",
    ],
)
def test_a_url_of_a_known_scheme_opens_without_touching_the_network(url: str) -> None:
    open_transport(url)


@pytest.mark.parametrize(("scheme", "nearest"), [("reddis", "redis"), ("sqlit", "sqlite"), ("sqss", "sqs")])
def test_an_unknown_scheme_is_answered_with_the_nearest(scheme: str, nearest: str) -> None:
    (problem,) = problems(f"{scheme}://user:s3cret@host/0")
    assert f"did you mean '{nearest}'" in problem
    assert "s3cret" not in problem


def test_a_scheme_like_no_other_is_answered_with_all() -> None:
    (problem,) = problems("kafka://host")
    assert "redis://" in problem
    assert "sqlite://" in problem


@pytest.mark.parametrize("url", ["", "localhost:6379", "user:s3cret@localhost"])
def test_what_is_no_url_is_said_to_be_none(url: str) -> None:
    (problem,) = problems(url)
    assert "is not a URL" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://localhost/shop", "'shop'"),
        ("redis://localhost:99999/0", "port"),
        ("redis://localhost:port/0", "port"),
        ("redis://[::1/0", "no usable URL"),
        ("redis://localhost/0?sockettimeout=3", "'sockettimeout'"),
        ("redis+socket://", "names no socket"),
        ("redis+socket:///run/redis.sock?virtual_host=x", "'x'"),
        ("sqlite://", "names no file"),
        ("sqlite://host/file.db", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("redis://:hun@ter/22@localhost/0", "the broker redis://**@localhost/0 holds characters that have to be"),
    ],
)
def test_a_wrong_url_says_what_is_wrong_with_it(url: str, said: str) -> None:
    assert said in " ".join(problems(url))


@pytest.mark.parametrize(
    "options",
    [
        {"visibility_timeout": 3600},
        {"fanout_prefix": True, "fanout_patterns": True, "max_connections": 10, "retry_on_timeout": True},
        {"lease_timeout": 5, "global_keyprefix": "x:", "priority_steps": list(range(10)), "sep": ":"},
        {"queue_order_strategy": "sorted", "unacked_key": "a", "unacked_index_key": "b", "unacked_mutex_key": "c"},
        {"socket_timeout": 5, "socket_connect_timeout": 1.5, "socket_keepalive": True, "health_check_interval": 0},
        {"client_name": "me", "socket_timeout": None},
        {"socket_keepalive_options": {"TCP_KEEPIDLE": 60}, "master_name": "unused", "sentinel_kwargs": {}},
        {"ssl_cert_reqs": "CERT_NONE", "ssl_ca_certs": None, "polling_interval": 1, "sentinel_fanout_compat": True},
    ],
)
def test_the_options_of_a_celery_configuration_are_accepted(options: dict[str, Any]) -> None:
    open_transport("redis://localhost", options=options)


def test_an_option_without_a_meaning_here_is_named_for_whoever_looks_closely(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "qworker.transports"):
        open_transport("redis://localhost", options={"max_connections": 10, "socket_timeout": 3})
    assert caplog.messages == ["broker_transport_options: max_connections has no meaning here"]


def test_the_visibility_timeout_of_celery_workers_is_kept_for_their_messages() -> None:
    _, found = read_url("redis://localhost", {"visibility_timeout": "7200"})
    assert found["visibility_timeout"] == 7200
    assert "above 0" in problems("redis://localhost", visibility_timeout=0)[0]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("visibility_timout", "visibility_timeout"), ("lease_time", "lease_timeout"), ("key_prefix", "global_keyprefix")],
)
def test_an_unknown_option_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    (problem,) = problems("redis://localhost", **{name: 1})
    assert repr(name) in problem
    assert nearest in problem


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lease_timeout": 0}, "above 0"),
        ({"lease_timeout": "soon"}, "above 0"),
        ({"socket_timeout": -1}, "above 0"),
        ({"priority_steps": [0, 3, 3]}, "rise"),
        ({"priority_steps": [3, 6]}, "begin with 0"),
        ({"priority_steps": "0369"}, "list of whole numbers"),
        ({"sep": ""}, "must not be empty"),
        ({"queue_order_strategy": "roundrobin"}, "round_robin"),
        ({"global_keyprefix": 5}, "string"),
        ({"socket_keepalive_options": {"TCP_KEEPALIFE": 5}}, "TCP_KEEPIDLE"),
        ({"sentinel_kwargs": "x"}, "dict"),
    ],
)
def test_a_wrong_value_says_what_it_must_be(options: dict[str, Any], said: str) -> None:
    (problem,) = problems("redis://localhost", **options)
    assert next(iter(options)) in problem
    assert said in problem


def test_all_mistakes_are_told_at_once() -> None:
    found = problems("redis://localhost:port/shop", lease_timeout=0, colour="red")
    assert len(found) == 4


def test_sqlite_knows_its_own_options_only() -> None:
    open_transport("sqlite:///x.db", options={"lease_timeout": 5, "synchronous": "NORMAL", "visibility_timeout": 9})
    assert "'synchronus'" in problems("sqlite:///x.db", synchronus="FULL")[0]
    assert "FULL" in problems("sqlite:///x.db", synchronous="sometimes")[0]


def test_an_adapter_is_loaded_only_when_its_scheme_is_used(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from qworker.transports import open_transport\n"
        "assert not {'sqlite3', 'hiredis', 'redis', 'ssl', 'asyncio'} & set(sys.modules)\n"
        "open_transport('redis://localhost')\n"
        "assert not {'sqlite3', 'redis', 'ssl', 'asyncio'} & set(sys.modules)\n"
        "open_transport('sqlite:///x.db')\n"
        "assert 'sqlite3' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=30)


def test_a_config_error_is_no_transport_error() -> None:
    from qworker.core.errors import TransportError

    assert issubclass(ConfigError, QWorkerError)
    assert not issubclass(ConfigError, TransportError)
