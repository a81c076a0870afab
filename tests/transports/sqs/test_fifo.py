"""FIFO queues: one in flight per group inside a worker, and a group's order through every end of a run."""

from __future__ import annotations

import json
import time

import pytest

from qworker import App
from qworker.transports import Ack, Envelope, Rejection
from qworker.transports.sqs import SqsTransport

from support.messages import number_of, numbers_of, raw_message
from support.moto_server import MotoServer
from support.sqs_workers import OpenSqs, PatientTransport
from support.waiting import wait_until

QUEUE = "f.fifo"


@pytest.fixture
def open_fifo(sqs: MotoServer, open_sqs: OpenSqs) -> OpenSqs:
    sqs.queue(QUEUE)
    return open_sqs


def message(number: int, group: str | None = "a", dedup: str | None = None, task_id: str | None = None) -> Envelope:
    found = json.loads(raw_message(number, QUEUE))
    if group:
        found["properties"]["MessageGroupId"] = group
    if dedup:
        found["properties"]["MessageDeduplicationId"] = dedup
    if task_id:
        found["headers"]["id"] = task_id
    return Envelope(QUEUE, json.dumps(found).encode(), task_id=found["headers"]["id"])


def next_of(worker: PatientTransport, count: int = 9) -> list[int]:
    return numbers_of(worker.reserve([QUEUE], count))


def test_of_each_group_the_first_alone_is_handed_over(open_fifo: OpenSqs) -> None:
    worker = open_fifo()
    worker.publish([message(0, "a"), message(1, "a"), message(10, "b"), message(2, "a"), message(11, "b")])
    taken = {number_of(d.raw): d for d in worker.reserve([QUEUE], 9)}
    assert sorted(taken) == [0, 10]
    worker.ack([Ack(taken[0])])
    (second,) = worker.reserve([QUEUE], 9)
    assert number_of(second.raw) == 1
    worker.ack([Ack(second), Ack(taken[10])])
    assert sorted(next_of(worker)) == [2, 11]


def test_the_next_one_waits_until_sqs_has_confirmed_the_delete(open_fifo: OpenSqs, sqs: MotoServer) -> None:
    worker = open_fifo()
    worker.publish([message(n) for n in range(3)])
    order = []
    for left in (2, 1, 0):
        (delivery,) = worker.reserve([QUEUE], 9)
        worker.ack([Ack(delivery)])
        order.append(number_of(delivery.raw))
        assert sum(sqs.counts(QUEUE)) == left
    assert order == [0, 1, 2]


def test_a_released_message_takes_those_behind_it_along(open_fifo: OpenSqs) -> None:
    ours, theirs = open_fifo(), open_fifo("theirs/1")
    ours.publish([message(n) for n in range(4)])
    ours.requeue(ours.reserve([QUEUE], 9))
    order = []
    while taken := theirs.reserve([QUEUE], 9):
        order += numbers_of(taken)
        theirs.ack([Ack(delivery) for delivery in taken])
    assert order == [0, 1, 2, 3]


def test_a_crashed_message_runs_again_here_at_once_ahead_of_its_group(open_fifo: OpenSqs, sqs: MotoServer) -> None:
    worker = open_fifo()
    worker.publish([message(n) for n in range(3)])
    (first,) = worker.reserve([QUEUE], 9)
    before = sqs.counts(QUEUE)
    assert SqsTransport.reserve(worker, [QUEUE], 9) == []  # it goes on fetching, as a worker does
    worker.requeue([first], crashed=True)
    (again,) = SqsTransport.reserve(worker, [QUEUE], 9)
    assert (number_of(again.raw), again.crashes, again.tag != first.tag) == (0, 1, True)
    assert sqs.counts(QUEUE) == before
    assert list(worker.ack([Ack(first)]).lost) == [first.tag]
    worker.ack([Ack(again)])
    assert next_of(worker) == [1]


def test_a_failed_message_that_is_given_back_blocks_its_group_and_no_other(open_fifo: OpenSqs, sqs: MotoServer) -> None:
    url = f"{sqs.endpoint}/123456789012/{QUEUE}"
    queue = {"url": url, "backoff_policy": {1: 2}, "backoff_tasks": ["shop.note"]}
    worker = open_fifo(predefined_queues={QUEUE: queue})
    worker.publish([message(0, "a"), message(1, "a"), message(10, "b")])
    taken = {number_of(d.raw): d for d in worker.reserve([QUEUE], 9)}
    failed_at = time.monotonic()
    worker.reject([Rejection(taken[0], "failed")])
    worker.ack([Ack(taken[10])])
    (again,) = wait_until(lambda: worker.reserve([QUEUE], 9), "it is there again")
    assert number_of(again.raw) == 0, "nothing of its group has come before"
    assert time.monotonic() - failed_at > 1.9
    worker.ack([Ack(again)])
    assert next_of(worker) == [1]


def test_a_countdown_holds_its_group_back(open_fifo: OpenSqs) -> None:
    worker = open_fifo()
    worker.publish([message(0, "a"), message(1, "a"), message(10, "b")])
    taken = {number_of(d.raw): d for d in worker.reserve([QUEUE], 9)}
    due = time.time() + 1.5
    worker.requeue([taken[0]], due=due)
    worker.ack([Ack(taken[10])])
    (again,) = wait_until(lambda: worker.reserve([QUEUE], 9), "it is there again")
    assert number_of(again.raw) == 0, "nothing of its group has come before"
    assert time.time() >= due - 0.01


def test_a_retry_is_not_taken_for_a_duplicate_of_its_first_run(open_fifo: OpenSqs) -> None:
    worker = open_fifo()
    worker.publish([message(0, dedup="order-7", task_id="t7")])
    (delivery,) = worker.reserve([QUEUE], 9)
    retry = message(5, dedup="order-7", task_id="t7")
    worker.ack([Ack(delivery, [retry])])
    assert next_of(worker) == [5]


def test_duplicates_of_a_producer_are_dropped_by_sqs(open_fifo: OpenSqs) -> None:
    worker = open_fifo()
    worker.publish([message(0, dedup="order-7")])
    worker.publish([message(1, dedup="order-7")])
    assert next_of(worker) == [0]


def test_group_and_deduplication_id_come_from_apply_async(open_fifo: OpenSqs, sqs: MotoServer) -> None:
    app = App("t", broker=sqs.url, task_default_queue=QUEUE)

    @app.task
    def charge(n: int) -> None: ...

    charge.apply_async((1,), MessageGroupId="customer-9", MessageDeduplicationId="order-7")
    charge.apply_async((2,))
    app.close()
    found = {m["Attributes"]["MessageGroupId"]: m["Attributes"] for m in sqs.receive(QUEUE)}
    assert set(found) == {"customer-9", "default"}
    assert found["customer-9"]["MessageDeduplicationId"] == "order-7"


def test_a_stop_gives_those_behind_back_as_well(open_fifo: OpenSqs, sqs: MotoServer) -> None:
    worker = open_fifo()
    worker.publish([message(n) for n in range(4)])
    (first,) = worker.reserve([QUEUE], 9)
    worker.stop_fetching()
    assert worker._outbox.flush(60)
    assert sqs.counts(QUEUE) == (3, 1, 0)
    worker.ack([Ack(first)])
    assert sqs.counts(QUEUE) == (3, 0, 0)
