"""Results in DynamoDB: the table, the items, and what AWS and networks do. By a moto server; faults by a proxy."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qworker.core.errors import ConfigError, ResultStoreError
from qworker.core.urls import redact
from qworker.results import ResultStore, open_result_store
from qworker.results.rebuild import rebuild
from qworker.tasks.typed_json import loads

from .test_stores import meta, stored
from support.moto_server import KEY_ID, SECRET, MotoServer, create_table
from support.sqs_proxy import SqsProxy

Make = Callable[..., ResultStore]
THROTTLED = (400, {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"})


def new_name() -> str:
    return f"results-{uuid.uuid4()}"


def items(behind: Any, table: str) -> dict[str, dict[str, Any]]:
    return {item["id"]["S"]: item for item in behind.scan(TableName=table)["Items"]}


class TestTheTable:
    def test_one_that_is_missing_stops_the_start_and_is_named_with_its_region(self, make: Make, behind: Any) -> None:
        name = new_name()

        with pytest.raises(ConfigError, match=rf"{name}' in eu-west-1 at .* does not exist: create it"):
            make(name).prepare()
        with pytest.raises(ResultStoreError, match="does not exist"):
            make(name).store([stored("a")])
        assert name not in behind.list_tables()["TableNames"]

    def test_it_is_created_when_the_url_says_so(self, make: Make, behind: Any) -> None:
        name = new_name()
        store = make(f"{name}?create_table=true")
        store.prepare()
        store.store([stored("a")])

        assert store.fetch("a") is not None
        made = behind.describe_table(TableName=name)["Table"]
        assert made["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        ttl = behind.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "ttl")

    def test_it_is_created_with_the_capacity_that_the_url_names(self, make: Make, behind: Any) -> None:
        name = new_name()
        options = {"create_table": True}
        make(f"{name}?read=5&write=7", result_backend_transport_options=options, result_expires=None).prepare()

        made = behind.describe_table(TableName=name)["Table"]["ProvisionedThroughput"]
        assert (made["ReadCapacityUnits"], made["WriteCapacityUnits"]) == (5, 7)
        ttl = behind.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        assert ttl["TimeToLiveStatus"] == "DISABLED"

    def test_two_workers_may_create_it_at_once(self, make: Make, proxy: SqsProxy) -> None:
        name = new_name()
        first, second = make(f"{name}?create_table=1"), make(f"{name}?create_table=1", proxy.port)

        def overtaken(asked: dict[str, Any]) -> None:
            first.prepare()

        proxy.break_("CreateTable", overtaken)
        second.prepare()
        second.store([stored("a")])

        assert first.fetch("a") is not None

    def test_one_with_another_key_stops_the_start(self, make: Make, behind: Any) -> None:
        name = new_name()
        create_table(behind, name, "task_id")

        with pytest.raises(ConfigError, match="partition key must be the string 'id'"):
            make(name).prepare()

    def test_one_that_deletes_nothing_is_reported_with_the_command_that_changes_it(
        self, make: Make, table: str, behind: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "qworker.results"):
            make(table, result_expires=None).prepare()
            assert caplog.text == ""
            make(table).prepare()
        assert f"update-time-to-live --table-name {table}" in caplog.text

        behind.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"})
        caplog.clear()
        make(table).prepare()
        assert caplog.text == ""

    def test_a_table_that_cannot_be_reached_does_not_stop_the_start(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = make("any-table", port=1, result_backend_transport_options={"socket_timeout": 0.4})

        with caplog.at_level(logging.WARNING, "qworker.results"):
            store.prepare()
        assert "cannot be reached" in caplog.text
        with pytest.raises(ResultStoreError, match="cannot be reached"):
            store.connect()

    def test_one_that_could_not_be_reached_at_the_start_is_created_when_it_can_be(
        self, make: Make, proxy: SqsProxy
    ) -> None:
        store = make(f"{new_name()}?create_table=true", proxy.port)
        proxy.is_cut = True
        store.prepare()
        proxy.is_cut = False
        with pytest.raises(ResultStoreError, match="does not exist"):
            store.store([stored("a")])
        store.connect()
        store.store([stored("a")])

        assert store.fetch("a") is not None

    def test_missing_credentials_stop_the_start(
        self, moto_server: MotoServer, table: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        store = open_result_store(f"dynamodb://{moto_server.place}/{table}?region=eu-west-1", settings={})
        assert store is not None

        with pytest.raises(ConfigError, match="needs credentials"):
            store.prepare()
        store.close()

    def test_credentials_come_from_the_environment_when_the_url_has_none(
        self, moto_server: MotoServer, table: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        settings = {"dynamodb_endpoint_url": moto_server.endpoint}
        store = open_result_store(f"dynamodb://@eu-west-1/{table}", settings=settings)
        assert store is not None
        store.prepare()
        store.store([stored("a")])

        assert store.fetch("a") is not None
        store.close()

    def test_a_role_is_assumed(self, make: Make, table: str, proxy: SqsProxy) -> None:
        store = make(
            table,
            proxy.port,
            result_backend_transport_options={"sts_role_arn": "arn:aws:iam::123456789012:role/results"},
        )
        store.prepare()
        store.store([stored("a")])

        # STS is asked in the older query protocol, which names no target.
        assert proxy.counts()[""] == 1
        assert store.fetch("a") is not None

    def test_a_profile_that_does_not_exist_stops_the_start(self, make: Make, table: str) -> None:
        with pytest.raises(ConfigError, match="nobody"):
            make(f"{table}?profile=nobody").prepare()

    @pytest.mark.parametrize(
        "code", ["AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException"]
    )
    def test_refused_credentials_stop_the_start_and_show_no_secret(
        self, make: Make, table: str, proxy: SqsProxy, code: str
    ) -> None:
        told = f"the canonical string should have been x-amz-security-token:{SECRET}" if "Sig" in code else "not you"
        proxy.break_("GetItem", lambda asked: (400, {"__type": f"com.amazon.coral.service#{code}", "message": told}))

        with pytest.raises(ConfigError, match=code) as refusal:
            make(table, proxy.port).prepare()
        assert SECRET not in str(refusal.value)


class TestItems:
    def test_they_expire_when_the_settings_say_so(self, make: Make, table: str, behind: Any) -> None:
        store = make(table, result_expires=100, result_failure_expires=1000)
        now = time.time()
        store.store([stored("a"), stored("b", "FAILURE"), stored("c", "STARTED")])
        took_s = time.time() - now

        found = items(behind, table)
        ttl = {name: int(found[f"b'celery-task-meta-{name}'"]["ttl"]["N"]) - now for name in "abc"}
        assert 99 <= ttl["a"] <= 101 + took_s
        assert 999 <= ttl["b"] <= 1001 + took_s
        assert 99 <= ttl["c"] <= 101 + took_s

    def test_the_urls_time_to_live_says_more_than_the_settings(self, make: Make, table: str, behind: Any) -> None:
        now = time.time()
        make(f"{table}?ttl_seconds=500", result_expires=100).store([stored("a")])
        make(f"{table}?ttl_seconds=-1", result_expires=100).store([stored("b")])
        took_s = time.time() - now

        found = items(behind, table)
        assert 499 <= int(found["b'celery-task-meta-a'"]["ttl"]["N"]) - now <= 501 + took_s
        assert "ttl" not in found["b'celery-task-meta-b'"]

    def test_what_has_expired_and_is_not_deleted_yet_is_gone_for_readers_and_gives_way(
        self, make: Make, table: str, behind: Any
    ) -> None:
        store = make(table)
        store.store([stored("a")])
        behind.update_item(
            TableName=table,
            Key={"id": {"S": "b'celery-task-meta-a'"}},
            UpdateExpression="SET #ttl = :past",
            ExpressionAttributeNames={"#ttl": "ttl"},
            ExpressionAttributeValues={":past": {"N": str(int(time.time()) - 1)}},
        )

        assert store.fetch("a") is None
        store.store([stored("a", "FAILURE")])
        assert store.fetch("a") == meta("a", "FAILURE")

    def test_a_result_that_does_not_fit_becomes_a_failure_that_says_so(
        self, make: Make, table: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = make(table)
        noise = random.Random(1).randbytes(400_000).hex()
        store.store([stored("a", result=noise), stored("b", result=1)])

        found = loads(store.fetch("a") or b"")
        assert (found["status"], found["task_id"]) == ("FAILURE", "a")
        problem = rebuild(found["result"])
        assert isinstance(problem, ResultStoreError)
        assert "does not fit into an item of DynamoDB" in str(problem)
        assert "a: the task has ended (SUCCESS)" in caplog.text
        assert store.fetch("b") == meta("b", "SUCCESS", 1)

    def test_a_passing_state_that_does_not_fit_is_left_out(
        self, make: Make, table: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = make(table)
        store.store([stored("a", "PROGRESS", random.Random(1).randbytes(400_000).hex()), stored("b", "PROGRESS", 5)])

        assert store.fetch("a") is None
        assert store.fetch("b") == meta("b", "PROGRESS", 5)
        assert "PROGRESS of task a is too large" in caplog.text

    def test_keys_stand_behind_the_global_prefix(self, make: Make, table: str, behind: Any) -> None:
        store = make(table, result_backend_transport_options={"global_keyprefix": "shop"})
        store.store([stored("a")])

        assert list(items(behind, table)) == ["b'shop_celery-task-meta-a'"]
        assert store.fetch("a") is not None
        assert make(table).fetch("a") is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("dynamodb://AKIA:sec/ret@eu-west-1/results", "percent-encoded"),
        ("dynamodb://AKIA:sec@ret@eu-west-1/results", "percent-encoded"),
        ("dynamodb://AKIA:secret/results", "no @ behind them"),
        ("dynamodb://AKIA@eu-west-1/results", "one half of the credentials"),
        ("dynamodb://europe/results", "no region of AWS"),
        ("dynamodb://eu-west-1/my results", "no name of a DynamoDB table"),
        ("dynamodb://eu-west-1/results?tll_seconds=5", "did you mean 'ttl_seconds'"),
        ("dynamodb://eu-west-1/results?ttl_seconds=day", "no whole number"),
        ("dynamodb://eu-west-1/results?ttl_seconds=0", "give -1"),
        ("dynamodb://eu-west-1/results?write=-1", "capacity units"),
        ("dynamodb://eu-west-1/results?create_table=perhaps", "neither true nor false"),
        ("dynamodb://eu-west-1/results?endpoint=localhost:8000", "must begin with http"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_secrets(url: str, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_result_store(url, settings={})

    assert words in str(refusal.value)
    assert "AKIA" not in str(refusal.value)
    assert "sec@ret" not in str(refusal.value)
    assert "sec/ret" not in str(refusal.value)
    assert ":secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "dynamodb://AKIA:a%2Fb@eu-west-1/t?session_token=c&read=1",
            "dynamodb://**:**@eu-west-1/t?session_token=**&read=1",
        ),
        ("dynamodb://AKIA:sec/ret@eu-west-1/t", "dynamodb://**:**@eu-west-1/t"),
        ("dynamodb://AKIA:secret/t", "dynamodb://**"),
        ("dynamodb://AKIA@eu-west-1/t", "dynamodb://**@eu-west-1/t"),
        ("dynamodb://localhost:8000/t", "dynamodb://localhost:8000/t"),
        ("dynamodb://eu-west-1/t?endpoint=http://db:8000", "dynamodb://eu-west-1/t?endpoint=http://db:8000"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_no_token_stands_in_a_log_of_level_debug(make: Make, table: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        store = make(f"{table}?session_token=FwoGZXIvYXdzEBYaD")
        store.prepare()
        store.store([stored("a")])

    assert "FwoGZXIvYXdzEBYaD" not in caplog.text
    assert SECRET not in caplog.text


def test_the_rights_in_the_documentation_are_those_that_are_used(make: Make, proxy: SqsProxy) -> None:
    store = make(f"{new_name()}?create_table=true", proxy.port)
    store.prepare()
    store.store([stored("a"), stored("b", "FAILURE")])
    store.fetch("a")
    store.forget("a")

    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text("utf-8")
    policy = json.loads(page.partition("```json")[2].partition("```")[0])
    assert {f"dynamodb:{action}" for action in proxy.counts()} == set(policy["Statement"][0]["Action"])


def test_boto_is_imported_for_its_own_url_only_and_not_before_the_first_call() -> None:
    program = (
        "import sys\n"
        "from qworker.results import open_result_store\n"
        "open_result_store('redis://localhost/0', settings={})\n"
        "open_result_store('dynamodb://eu-west-1/results', settings={})\n"
        "assert not {'boto3', 'botocore'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
