"""What travels to DynamoDB and back: batches, tries, lost answers, waiting. By a moto server; faults by a proxy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from qworker.core.errors import ResultStoreError
from qworker.results import ResultStore

from .test_stores import meta, stored
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy
from support.stopwatch import Stopwatch

Make = Callable[..., ResultStore]
THROTTLED = (400, {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"})


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
        store = make(table, proxy.port, result_backend_transport_options={"socket_timeout": 4})
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
        assert watch.s < 8

        proxy.faults.clear()
        before = len(proxy.of("BatchWriteItem"))
        store.store(results)
        assert {len(request.asked["RequestItems"][table]) for request in proxy.of("BatchWriteItem")[before:]} == {20}

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
        assert 2 <= len(asked) <= 14  # two when each look takes longer than the wait
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
