"""The producer: one connection for each thread and process, made anew when it has to be, and nothing sent twice."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from qworker import App, TransportError
from qworker.tasks import context as contexts
from qworker.tasks.codec import decode
from qworker.tasks.context import Context
from qworker.tasks.producer import Producer
from qworker.tasks.serializers import accepted_types
from qworker.testing import FlakyTransport, MemoryBroker, MemoryTransport
from qworker.transports import Transport, open_transport


class Counted(FlakyTransport):
    """Also counts how often it was closed."""

    def close(self) -> None:
        self.calls["close"] += 1
        self.inner.close()


class Memory:
    """An app whose broker is in memory, and each transport that it has opened."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.opened: list[Counted] = []
        self.app = App("t", backend="sqlite://")
        self.app._producer = Producer(self.open)

    def open(self) -> Transport:
        self.opened.append(Counted(MemoryTransport(self.broker)))
        return self.opened[-1]

    def waiting(self) -> int:
        return MemoryTransport(self.broker).depths(["celery"])["celery"]


def test_sending_puts_the_message_on_the_broker_and_returns_its_handle() -> None:
    memory = Memory()
    result = memory.app.send_task("t.task", [1], task_id="i")
    assert (result.id, memory.waiting()) == ("i", 1)
    (delivery,) = MemoryTransport(memory.broker, owner="w").reserve(["celery"], 10)
    assert decode(delivery.raw, accept=accepted_types(["json"])).args == [1]


def test_a_task_that_sends_has_children_unless_it_leaves_no_trail() -> None:
    memory = Memory()
    for trail, count in ((True, 2), (False, 0)):
        task = memory.app.task(name=f"t.{trail}", trail=trail)(lambda: None)
        context = Context(id="i", called_directly=False)
        entered = contexts.enter(task, context)
        try:
            memory.app.send_task("x", task_id="a")
            memory.app.send_task("y", task_id="b")
            memory.app.send_task("z", add_to_parent=False)
        finally:
            contexts.leave(entered)
        assert len(context.children) == count


def test_one_thread_uses_one_connection() -> None:
    memory = Memory()
    for _ in range(3):
        memory.app.send_task("x")
    (transport,) = memory.opened
    assert (transport.calls["connect"], transport.calls["publish"]) == (1, 3)


def test_each_thread_has_a_connection_of_its_own_and_ended_ones_are_closed() -> None:
    memory = Memory()
    for _ in range(2):
        thread = threading.Thread(target=memory.app.send_task, args=("x",))
        thread.start()
        thread.join()
    memory.app.send_task("x")
    assert memory.waiting() == 3
    assert 1 <= len(memory.opened) <= 3
    assert all(t.calls["close"] for t in memory.opened[:-1])


def test_a_connection_unused_for_long_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    memory.app.send_task("x")
    now = time.monotonic()
    monkeypatch.setattr("qworker.tasks.producer.time.monotonic", lambda: now + 60)
    memory.app.send_task("x")
    assert memory.opened[0].calls["connect"] == 2


def test_a_failed_send_reaches_the_caller_and_is_not_repeated_when_it_may_have_been_carried_out() -> None:
    memory = Memory()
    memory.app.send_task("x")
    memory.opened[0].fail_after("publish")
    with pytest.raises(TransportError, match="not known"):
        memory.app.send_task("x")
    assert memory.waiting() == 2


def test_a_send_that_certainly_was_not_is_tried_once_more() -> None:
    memory = Memory()
    memory.app.send_task("x")
    transport = memory.opened[0]
    real, failures = transport.inner.publish, []

    def publish(envelopes: Any) -> None:
        if not failures:
            failures.append(TransportError("the connection was closed"))
            failures[0].nothing_sent = True
            raise failures[0]
        real(envelopes)

    transport.inner.publish = publish  # type: ignore[method-assign]
    memory.app.send_task("x")
    assert (memory.waiting(), transport.calls["connect"]) == (2, 2)


def test_an_unreachable_broker_is_an_error_at_every_send_until_it_is_back() -> None:
    memory = Memory()
    memory.app.send_task("x")
    memory.app.close()
    memory.open = lambda: _down(FlakyTransport(MemoryTransport(memory.broker)))  # type: ignore[method-assign]
    memory.app._producer = Producer(memory.open)
    for _ in range(2):
        with pytest.raises(TransportError):
            memory.app.send_task("x")
    assert memory.waiting() == 1


def _down(transport: FlakyTransport) -> FlakyTransport:
    transport.go_down()
    return transport


def test_a_forked_child_opens_its_own_connection_and_leaves_the_parents_alone() -> None:
    memory = Memory()
    memory.app.send_task("x")
    oid = memory.app.oid
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            memory.app.send_task("x")
            memory.app.close()
            ok = len(memory.opened) == 2 and not memory.opened[0].calls["close"] and memory.app.oid != oid
            os.write(writer, b"y" if ok else b"n")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    answer = os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    assert (answer, memory.app.oid) == (b"y", oid)


def test_close_closes_and_the_app_goes_on_afterwards() -> None:
    memory = Memory()
    with memory.app:
        memory.app.send_task("x")
    assert memory.opened[0].calls["close"] == 1
    memory.app.send_task("x")
    assert len(memory.opened) == 2


def test_many_threads_may_send_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'q.db'}"
    app = App("t", broker=url)
    threads = [threading.Thread(target=lambda: [app.send_task("x") for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    app.close()
    transport = open_transport(url)
    transport.connect()
    assert transport.depths(["celery"]) == {"celery": 40}
    transport.close()
