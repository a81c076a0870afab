"""dead list, show, requeue, purge: on dead letters of a real SQLite file and a real Redis."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qworker.transports import Delivery, Envelope, Rejection, Transport, open_transport

from .conftest import Qworker
from support.redis_server import RedisServer

DETAILS = {"cause": "signal 9 (SIGKILL)", "peak_kib": 12345, "traceback": "Traceback:\n  line"}
Bury = Callable[..., None]


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/q.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:
        client.flushall()
    return server.url


@pytest.fixture
def behind(url: str) -> Iterator[Transport]:
    """The broker, as a worker sees it."""
    transport = open_transport(url, owner="test")
    transport.connect()
    yield transport
    transport.close()


@pytest.fixture
def bury(behind: Transport) -> Bury:
    """Put messages with these ids into the dead-letter store, in this order; the crash count is 1."""

    def call(*ids: str, queue: str = "hipri") -> None:
        for task_id in ids:
            behind.publish([Envelope(queue, raw(task_id))])
            behind.requeue(behind.reserve([queue], 1), crashed=True)
            behind.reject([Rejection(delivery, "crashed", DETAILS) for delivery in behind.reserve([queue], 1)])
            time.sleep(0.002)  # times of death are kept in milliseconds

    return call


@pytest.fixture
def dead(qworker: Qworker, url: str) -> Qworker:
    """`qworker dead …` on this broker."""
    return lambda command, *arguments: qworker("-b", url, "dead", command, *arguments)


def raw(task_id: str) -> bytes:
    headers = {"task": "shop.charge", "id": task_id, "lang": "py"}
    return json.dumps({"body": "W1tdLCB7fSwge31d", "headers": headers, "properties": {}}).encode()


def waiting(behind: Transport, *queues: str) -> list[Delivery]:
    return behind.reserve(queues or ["hipri"], 100)


def ids(items: Any) -> list[str]:
    return [json.loads(item.raw)["headers"]["id"] for item in items]


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


class TestList:
    def test_a_line_for_each_message_of_the_named_queues(self, dead: Qworker, bury: Bury) -> None:
        bury("t1", "t2")
        bury("t3", queue="other")

        head, *lines = dead("list").out.splitlines()
        assert head.split() == ["queue", "id", "task", "reason", "crashes", "time"]
        assert [line.split()[:5] for line in lines[1:]] == [
            ["hipri", task_id, "shop.charge", "crashed", "1"] for task_id in ("t2", "t1")
        ]
        found = [json.loads(line) for line in dead("list", "-Q", "hipri", "--json").out.splitlines()]
        assert [letter["id"] for letter in found] == ["t2", "t1"]
        assert len(dead("list", "-Q", "hipri", "--limit", "1").out.splitlines()) == 2

    def test_the_crash_count_is_that_of_the_details_which_know_the_last_crash_too(
        self, dead: Qworker, behind: Transport
    ) -> None:
        behind.publish([Envelope("hipri", raw("t1"))])
        behind.reject([Rejection(d, "crashed", {"crashes": 3}) for d in behind.reserve(["hipri"], 1)])

        assert json.loads(dead("list", "--json").out)["crashes"] == 3
        assert "crashes: 3\n" in dead("show", "t1").out

    def test_a_long_id_is_cut_and_still_understood(self, dead: Qworker, bury: Bury, behind: Transport) -> None:
        bury("x" * 300, "t2")

        cut = dead("list").out.splitlines()[2].split()[1]
        assert len(cut) == 40
        assert f"id: {'x' * 300}\n" in dead("show", cut).out
        assert dead("requeue", cut) == (0, "requeued 1 dead letter\n", "")
        assert ids(waiting(behind)) == ["x" * 300]

    def test_a_cut_id_that_fits_several_is_refused(self, dead: Qworker, bury: Bury) -> None:
        bury("x" * 300, "x" * 299)

        ended = dead("purge", dead("list").out.splitlines()[2].split()[1])
        assert ended.code == 1
        assert "fits 2 dead letters" in ended.error_line

    def test_no_name_can_break_the_line_or_speak_to_the_terminal(self, dead: Qworker, bury: Bury) -> None:
        bury("a\n\x1b[31mb", queue="q\n\x1b[31mb")

        lines = dead("list").out.splitlines()
        assert len(lines) == 2
        assert lines[1].startswith("q\ufffd\ufffd[31mb  ")
        assert "\x1b" not in lines[1]

    def test_without_an_id_the_token_stands_in_its_place(self, dead: Qworker, behind: Transport) -> None:
        behind.publish([Envelope("hipri", b"\xff garbage")])
        behind.reject([Rejection(delivery, "undecodable") for delivery in waiting(behind)])

        shown = dead("list").out.splitlines()[1].split()[1]
        assert "headers: null" in dead("show", shown).out
        assert dead("requeue", shown).code == 0
        assert [delivery.raw for delivery in waiting(behind)] == [b"\xff garbage"]


def test_show_escapes_what_a_terminal_would_obey_or_cannot_show(dead: Qworker, behind: Transport) -> None:
    raw = b'{"headers": {"task": "t", "id": "odd", "note": "\\ud800 \xc2\x9b31m \xc3\xa9"}}'
    behind.publish([Envelope("hipri", raw)])
    behind.reject([Rejection(delivery, "undecodable") for delivery in waiting(behind)])

    ended = dead("show", "odd")
    assert ended.code == 0
    assert r'"note": "\ud800 \u009b31m \u00e9"' in ended.out


def test_show_tells_signal_memory_traceback_and_headers(dead: Qworker, bury: Bury) -> None:
    bury("t1")

    out = dead("show", "t1").out
    for line in ("id: t1", "cause: signal 9 (SIGKILL)", "peak_kib: 12345", "traceback:\nTraceback:\n  line"):
        assert line in out
    assert '"task": "shop.charge"' in out


class TestRequeue:
    def test_by_id_the_message_is_back_as_it_was(self, dead: Qworker, bury: Bury, behind: Transport) -> None:
        bury("t1", "t2", "t3")

        assert dead("requeue", "t3", "t1") == (0, "requeued 2 dead letters\n", "")
        deliveries = waiting(behind)
        assert [(delivery.raw, delivery.crashes) for delivery in deliveries] == [(raw("t1"), 0), (raw("t3"), 0)]
        assert ids(behind.dead_letters()) == ["t2"]

    def test_by_token(self, dead: Qworker, bury: Bury, behind: Transport) -> None:
        bury("t1", "t1")
        newest = behind.dead_letters()[0].token

        assert dead("requeue", newest).code == 0
        assert [letter.token for letter in behind.dead_letters()] != [newest]
        assert ids(waiting(behind)) == ["t1"]

    def test_an_unknown_id_changes_nothing(self, dead: Qworker, bury: Bury, behind: Transport) -> None:
        bury("t1")

        for command in ("requeue", "purge", "show"):
            ended = dead(command, "nobody") if command == "show" else dead(command, "t1", "nobody")
            assert (ended.code, ended.out) == (1, "")
            assert "no dead letter 'nobody'" in ended.error_line
        assert ids(behind.dead_letters()) == ["t1"]

    @pytest.mark.parametrize(("text", "code", "back"), [("n\n", 1, 0), ("y\n", 0, 2), ("", 1, 0)])
    def test_all_asks(
        self,
        dead: Qworker,
        bury: Bury,
        behind: Transport,
        monkeypatch: pytest.MonkeyPatch,
        text: str,
        code: int,
        back: int,
    ) -> None:
        bury("t1", "t2")
        answer(monkeypatch, text)

        ended = dead("requeue", "--all")
        assert ended.code == code
        assert "Put 2 dead letters of hipri back on their queues?" in ended.err
        assert len(waiting(behind)) == back

    def test_by_queue(self, dead: Qworker, bury: Bury, behind: Transport) -> None:
        bury("t1", "t2")
        bury("t3", queue="other")

        assert dead("requeue", "-Q", "other", "-f") == (0, "requeued 1 dead letter\n", "")
        assert ids(waiting(behind, "hipri", "other")) == ["t3"]

    def test_nothing_dead(self, dead: Qworker, behind: Transport) -> None:
        assert dead("requeue", "--all") == (0, "requeued 0 dead letters\n", "")
        assert dead("purge", "--all") == (0, "deleted 0 dead letters\n", "")


class TestPurge:
    def test_by_id_and_queue(self, dead: Qworker, bury: Bury, behind: Transport) -> None:
        bury("t1", "t2", "t3")
        bury("t4", queue="other")

        assert dead("purge", "t2") == (0, "deleted 1 dead letter\n", "")
        assert dead("purge", "-Q", "other", "-f") == (0, "deleted 1 dead letter\n", "")
        assert ids(behind.dead_letters()) == ["t3", "t1"]
        assert waiting(behind, "hipri", "other") == []

    def test_by_age(self, dead: Qworker, bury: Bury, behind: Transport) -> None:
        bury("t1")

        assert dead("purge", "--older-than", "1h", "-f") == (0, "deleted 0 dead letters\n", "")
        time.sleep(0.01)  # so that the letter is older than no time at all
        assert dead("purge", "--older-than", "0s", "-f") == (0, "deleted 1 dead letter\n", "")
        assert behind.dead_letters() == []

    def test_all_asks(self, dead: Qworker, bury: Bury, behind: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
        bury("t1")
        answer(monkeypatch, "n\n")

        ended = dead("purge", "--all")
        assert (ended.code, ended.out) == (1, "")
        assert "Delete 1 dead letter of hipri for good?" in ended.err
        assert ids(behind.dead_letters()) == ["t1"]
        assert dead("purge", "--all", "--force") == (0, "deleted 1 dead letter\n", "")
