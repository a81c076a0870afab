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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qworker.core.errors import ConfigError, ResultStoreError
from qworker.core.urls import redact
from qworker.results import ResultStore, open_result_store
from qworker.results.rebuild import rebuild
from qworker.tasks.typed_json import loads

from .test_stores import meta, stored
from support.moto_server import KEY_ID, LOGIN, SECRET, MotoServer
from support.sqs_proxy import SqsProxy
from support.stopwatch import Stopwatch

Make = Callable[..., ResultStore]
THROTTLED = (400, {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"})


@pytest.fixture
def make(moto_server: MotoServer) -> Iterator[Make]:
    """Open stores by the part of the URL that follows the region; settings as keywords."""
    opened = []

    def open_(table: str, port: int = moto_server.port, **settings: Any) -> ResultStore:
        sign = "&" if "?" in table else "?"
        url = f"dynamodb://{LOGIN}@eu-west-1/{table}{sign}endpoint=http://127.0.0.1:{port}"
        store = open_result_store(url, settings=settings)
        assert store is not None
        opened.append(store)
        return store

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def behind(moto_server: MotoServer) -> Iterator[Any]:
    """botocore's own client."""
    client = moto_server.client_of("dynamodb", "eu-west-1")
    yield client
    client.close()


@pytest.fixture
def table(behind: Any) -> str:
    """A new table."""
    name = new_name()
    create(behind, name, "id")
    return name


@pytest.fixture
def proxy(moto_server: MotoServer) -> Iterator[SqsProxy]:
    with SqsProxy(moto_server.port) as proxy:
        yield proxy


def new_name() -> str:
    return f"results-{uuid.uuid4()}"


def create(behind: Any, name: str, key: str) -> None:
    behind.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )


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
        create(behind, name, "task_id")

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

        found = items(behind, table)
        ttl = {name: int(found[f"b'celery-task-meta-{name}'"]["ttl"]["N"]) - now for name in "abc"}
        assert 99 <= ttl["a"] <= 105
        assert 999 <= ttl["b"] <= 1005
        assert 99 <= ttl["c"] <= 105

    def test_the_urls_time_to_live_says_more_than_the_settings(self, make: Make, table: str, behind: Any) -> None:
        now = time.time()
        make(f"{table}?ttl_seconds=500", result_expires=100).store([stored("a")])
        make(f"{table}?ttl_seconds=-1", result_expires=100).store([stored("b")])

        found = items(behind, table)
        assert 499 <= int(found["b'celery-task-meta-a'"]["ttl"]["N"]) - now <= 505
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


class TestCalls:
    def test_successes_travel_in_batches_of_25(self, make: Make, table: str, proxy: SqsProxy) -> None:
        make(table, proxy.port).store([stored(f"t{number}") for number in range(60)])

        sizes = [len(request.asked["RequestItems"][table]) for request in proxy.of("BatchWriteItem")]
        assert sorted(sizes) == [10, 25, 25]

    def test_what_a_batch_gives_back_is_sent_again(self, make: Make, table: str, proxy: SqsProxy) -> None:
        store = make(table, proxy.port)

        def no_capacity(asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            return 200, {"UnprocessedItems": asked["RequestItems"]}

        proxy.break_("BatchWriteItem", no_capacity, times=2)
        store.store([stored(f"t{number}") for number in range(10)])

        assert len(proxy.of("BatchWriteItem")) == 3
        assert all(store.fetch(f"t{number}") for number in range(10))

    @pytest.mark.parametrize("status", ["SUCCESS", "FAILURE"])
    def test_a_result_that_dynamodb_never_takes_holds_up_no_other(
        self, make: Make, table: str, proxy: SqsProxy, status: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refused(asked: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
            fault = {"__type": "com.amazon.coral.validate#ValidationException", "message": "no such number"}
            return (400, fault) if "celery-task-meta-bad" in json.dumps(asked) else None

        store = make(table, proxy.port)
        proxy.break_("BatchWriteItem", refused, times=100)
        proxy.break_("PutItem", refused, times=100)
        store.store([stored(name, status) for name in ("a", "b", "bad", "c")])

        assert [store.fetch(name) is None for name in ("a", "b", "bad", "c")] == [False, False, True, False]
        assert "meta-bad' is lost: " in caplog.text

    @pytest.mark.parametrize("state", ["\ud800", "x" * 3000, "ärger"])
    def test_any_text_can_be_a_state(self, make: Make, table: str, state: str) -> None:
        store = make(table)
        store.store([stored("a", state)])

        assert store.fetch("a") == meta("a", state)

    @pytest.mark.parametrize("status", ["SUCCESS", "FAILURE"])
    def test_throttling_is_waited_out(self, make: Make, table: str, proxy: SqsProxy, status: str) -> None:
        store = make(table, proxy.port)
        proxy.break_("BatchWriteItem", lambda asked: THROTTLED, times=2)
        proxy.break_("PutItem", lambda asked: THROTTLED, times=2)
        proxy.break_("GetItem", lambda asked: THROTTLED, times=2)
        store.store([stored("a", status)])

        assert store.fetch("a") == meta("a", status)

    def test_a_table_without_capacity_is_an_error_in_time_and_what_is_written_is_not_written_again(
        self, make: Make, table: str, proxy: SqsProxy
    ) -> None:
        store = make(table, proxy.port, result_backend_transport_options={"socket_timeout": 1})
        store.connect()
        results = [stored(f"t{number:02}") for number in range(25)]

        def half(asked: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
            puts = asked["RequestItems"][table]
            if len(puts) == 25:
                asked["RequestItems"][table] = puts[:5]
                return 200, {"UnprocessedItems": {table: puts[5:]}}
            return THROTTLED

        proxy.break_("BatchWriteItem", half, times=1000)
        watch = Stopwatch()
        with pytest.raises(ResultStoreError, match="ProvisionedThroughputExceeded"):
            store.store(results)
        assert watch.s < 2

        proxy.faults.clear()
        before = len(proxy.of("BatchWriteItem"))
        store.store(results)
        (last,) = proxy.of("BatchWriteItem")[before:]
        assert len(last.asked["RequestItems"][table]) == 20

    def test_a_server_that_answers_nothing_costs_no_more_than_the_time_out(self, table: str, make: Make) -> None:
        with MotoServer() as server:
            store = make(table, server.port, result_backend_transport_options={"socket_timeout": 1})
            with pytest.raises(ResultStoreError):
                store.connect()
            server.freeze()
            for call in (
                lambda: store.store(
                    [*(stored(f"s{n}") for n in range(500)), *(stored(f"f{n}", "STARTED") for n in range(20))]
                ),
                lambda: store.fetch("a"),
                lambda: store.forget("a"),
                store.connect,
            ):
                watch = Stopwatch()
                with pytest.raises(ResultStoreError, match=r"cannot be reached|too slow"):
                    call()
                assert watch.s < 2.5
            server.thaw()

    def test_a_lost_answer_is_asked_for_again(self, make: Make, table: str, proxy: SqsProxy) -> None:
        store = make(table, proxy.port)
        proxy.drops.update(["PutItem", "BatchWriteItem", "GetItem"])
        store.store([stored("a"), stored("b", "FAILURE")])

        assert store.fetch("a") == meta("a", "SUCCESS")
        assert store.fetch("b") == meta("b", "FAILURE")

    def test_a_waiter_asks_ever_less_often(self, make: Make, table: str, proxy: SqsProxy) -> None:
        assert make(table, proxy.port).wait("nobody", 3) is None

        asked = [request.asked["ConsistentRead"] for request in proxy.of("GetItem")]
        assert 3 <= len(asked) <= 14
        assert (asked[0], asked[-1]) == (True, True)
        assert not any(asked[1:-1])

    def test_a_waiter_whose_time_ends_during_a_look_looks_once_more_for_certain(
        self, make: Make, table: str, proxy: SqsProxy
    ) -> None:
        proxy.break_("GetItem", lambda asked: None if asked["ConsistentRead"] else time.sleep(1.0), times=100)
        assert make(table, proxy.port).wait("nobody", 0.9) is None

        asked = [request.asked["ConsistentRead"] for request in proxy.of("GetItem")]
        assert asked[-1] is True
        assert len(asked) <= 3

    def test_a_success_that_comes_between_look_and_write_stays(
        self, make: Make, table: str, proxy: SqsProxy, behind: Any
    ) -> None:
        foreign = {"id": {"S": "b'celery-task-meta-a'"}, "timestamp": {"N": "1"}}
        behind.put_item(TableName=table, Item={**foreign, "result": {"B": meta("a", "STARTED")}})
        looks = []

        def overtaken(asked: dict[str, Any]) -> None:
            if looks:
                behind.put_item(TableName=table, Item={**foreign, "result": {"B": meta("a", "SUCCESS", 5)}})
            looks.append(asked)

        proxy.break_("PutItem", overtaken, times=2)
        make(table, proxy.port).store([stored("a", "FAILURE")])

        assert make(table).fetch("a") == meta("a", "SUCCESS", 5)


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
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
