"""`sqs://` URLs, credentials, regions, endpoints and options: read as meant, or refused with the right spelling."""

from __future__ import annotations

import os
from typing import Any

import pytest

from qworker.core.errors import ConfigError
from qworker.core.urls import redact
from qworker.transports import open_transport
from qworker.transports.sqs_clients import Clients
from qworker.transports.sqs_url import Account, Backoff, predefined, read_sqs_options, read_url


def refused(url: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        open_transport(url, options=options)
    return str(caught.value)


def test_percent_encoded_parts_are_decoded() -> None:
    account = read_url("sqs://AKID%2B:wJalr%2FUtn%2BFE%40MI@", {})
    assert (account.key_id, account.secret, account.endpoint) == ("AKID+", "wJalr/Utn+FE@MI", None)


def test_a_plus_stays_a_plus() -> None:
    assert read_url("sqs://AKID:a+b@", {}).secret == "a+b"


@pytest.mark.parametrize("url", ["sqs://", "sqs://@"])
def test_without_credentials_the_environment_is_asked(url: str) -> None:
    assert read_url(url, {}) == Account()


@pytest.mark.parametrize(
    ("url", "options", "endpoint"),
    [
        ("sqs://key:secret@localhost:9324", {}, "http://localhost:9324"),
        ("sqs://key:secret@localhost:9324/", {}, "http://localhost:9324"),
        ("sqs://localhost:9324", {}, "http://localhost:9324"),
        ("sqs://key:secret@sqs.example.com", {"is_secure": True}, "https://sqs.example.com"),
        ("sqs://key:secret@[::1]:9324", {}, "http://[::1]:9324"),
    ],
)
def test_a_host_is_another_endpoint(url: str, options: dict[str, Any], endpoint: str) -> None:
    assert read_url(url, options).endpoint == endpoint


def test_a_session_token_and_a_region_come_from_the_options() -> None:
    account = read_url("sqs://k:s@", {"session_token": "tok", "region": "eu-west-1"})
    assert (account.token, account.region) == ("tok", "eu-west-1")


@pytest.mark.parametrize(
    "url",
    [
        "sqs://AKID:wJalr/UtnSECRET@",
        "sqs://AKID:wJalr@UtnSECRET@",
        "sqs://AKID:wJalrUtnSECRET",
        "sqs://AKID:wJalr/UtnSECRET",
        "sqs://wJalrUtnSECRET@",
        "sqs://:wJalrUtnSECRET@",
        "sqs://AKID:@",
        "sqs://AKID:SECRET@host:port",
        "sqs://AKID:SECRET@host:1/vhost",
        "sqs://AKID:SECRET@?region=eu",
    ],
)
def test_a_misspelt_url_is_refused_with_the_right_spelling_and_no_secret(url: str) -> None:
    problem = refused(url)
    assert "SECRET@" in problem or "broker_transport_options" in problem
    assert "wJalr" not in problem
    assert "wJalr" not in redact(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqs://AKID:secret@", "sqs://**:**@"),
        ("sqs://AKID:sec/ret@", "sqs://**:**@"),
        ("sqs://AKID:secret@localhost:1", "sqs://**:**@localhost:1"),
        ("sqs://AKID:secret", "sqs://**"),
        ("sqs://", "sqs://"),
        ("sqs://localhost:4566", "sqs://localhost:4566"),
    ],
)
def test_neither_half_of_the_credentials_is_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"wait_time_seconds": 21}, "0 to 20"),
        ({"wait_time_seconds": "10"}, "0 to 20"),
        ({"wait_time_second": 5}, "wait_time_seconds"),
        ({"visibility_timeout": 43201}, "43200"),
        ({"sts_token_timeout": 60}, "900"),
        ({"region": 5}, "text"),
        ({"sqs_base64_encoding": "no"}, "True or False"),
        ({"predefined_queues": {"q": {}}}, "'url'"),
        ({"predefined_queues": {"q": {"url": "https://x/q", "acces_key_id": "a"}}}, "access_key_id"),
        ({"predefined_queues": {"q": {"url": "https://x/q", "secret_access_key": "a%2Fb"}}}, "percent-encoded"),
        ({"predefined_queues": {"q": {"url": "https://x/q", "backoff_policy": {"a": 1}}}}, "no pair of numbers"),
        ({"predefined_queues": {"q": {"url": "https://x/q", "backoff_tasks": ["t"]}}}, "without a backoff_policy"),
        ({"queue_order_strategy": "weigthed"}, "weighted"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], complaint: str) -> None:
    assert complaint in refused("sqs://", **options)


def test_what_celery_knows_and_we_do_not_need_is_accepted() -> None:
    read_sqs_options({"supports_fanout": True, "max_retries": 3, "interval_start": 0, "visibility_timeout": 1800})


def test_a_predefined_queue_has_credentials_region_and_endpoint_of_its_own() -> None:
    base = Account("k", "s", None, "us-west-2", None)
    found = predefined(
        {
            "own": {
                "url": "https://ap-southeast-2.queue.amazonaws.com/123456/own",
                "access_key_id": "xxx",
                "secret_access_key": "y/y",
            },
            "new": {"url": "https://sqs.eu-west-1.amazonaws.com/123456/new"},
            "told": {"url": "https://sqs.eu-west-1.amazonaws.com/1/told", "region": "eu-north-1"},
            "here": {"url": "http://localhost:9324/123456/here"},
        },
        base,
    )
    assert found["own"].account == Account("xxx", "y/y", None, "ap-southeast-2", None)
    assert found["new"].account == Account("k", "s", None, "eu-west-1", None)
    assert found["told"].account.region == "eu-north-1"
    assert found["here"].account == Account("k", "s", None, "us-west-2", "http://localhost:9324")


def test_a_backoff_table_goes_on_with_its_last_value() -> None:
    backoff = Backoff({1: 10, 2: 20, 4: 80})
    assert [backoff.wait_s(runs) for runs in (1, 2, 3, 4, 5, 99)] == [10, 20, 20, 80, 80, 80]


def test_the_region_comes_from_the_option_the_environment_or_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    assert Clients({}).region_of(Account()) == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert Clients({}).region_of(Account()) == "eu-central-1"
    assert Clients({}).region_of(Account(region="sa-east-1")) == "sa-east-1"


def test_reprs_hold_no_secrets() -> None:
    assert "s3cret" not in repr(Account("s3cret", "s3cret", "s3cret"))


def test_nothing_of_boto_is_imported_before_it_is_needed() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from qworker.transports import open_transport; open_transport('sqs://k:s@', owner='w/1');"
        "sys.exit(any(name.split('.')[0] in ('boto3', 'botocore', 'urllib3') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
