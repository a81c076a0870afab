"""call, result, queues, purge, dead, report: on a real application with a SQLite broker."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import qworker.cli.entry
from qworker.results import StoredResult, open_result_store
from qworker.tasks import find_app
from qworker.transports import Rejection, open_transport

from .conftest import Qworker

SHOP = ("-A", "cli_shop")


def reserve(shop: Path, queue: str) -> list[dict[str, Any]]:
    """What waits on the queue, as decoded envelopes."""
    transport = open_transport(f"sqlite:///{shop}/q.db", owner="test")
    transport.connect()
    deliveries = transport.reserve([queue], 100)
    transport.requeue(deliveries)
    transport.close()
    return [json.loads(delivery.raw) for delivery in deliveries]


def store(shop: Path, task_id: str, status: str, result: Any, traceback: str | None = None) -> None:
    results = open_result_store(f"sqlite:///{shop}/q.db", settings={})
    assert results is not None
    meta = {"status": status, "result": result, "traceback": traceback, "task_id": task_id}
    results.store([StoredResult(task_id, json.dumps(meta).encode(), status == "SUCCESS")])
    results.close()


def bury(shop: Path, queue: str) -> None:
    transport = open_transport(f"sqlite:///{shop}/q.db", owner="test")
    transport.connect()
    details = {"cause": "signal 9 (SIGKILL)", "peak_kib": 12345, "traceback": "Traceback:\n  line"}
    transport.reject([Rejection(delivery, "crashed", details) for delivery in transport.reserve([queue], 100)])
    transport.close()


class TestCall:
    def test_it_sends_the_task_and_shows_its_id(self, qworker: Qworker, shop: Path) -> None:
        code, out, err = qworker(*SHOP, "call", "cli_shop.add", "-a", "[1]", "-k", '{"y": 2}', "--task-id", "t1")

        assert (code, out, err) == (0, "t1\n", "")
        (message,) = reserve(shop, "celery")
        assert message["headers"]["task"] == "cli_shop.add"
        assert message["headers"]["id"] == "t1"
        assert message["headers"]["argsrepr"] == "(1,)"

    def test_a_task_goes_to_its_own_queue_unless_told_otherwise(self, qworker: Qworker, shop: Path) -> None:
        qworker(*SHOP, "call", "cli_shop.boom")
        qworker(*SHOP, "call", "cli_shop.boom", "--queue", "low", "--priority", "7")

        assert len(reserve(shop, "hipri")) == 1
        (message,) = reserve(shop, "low")
        assert message["properties"]["priority"] == 7

    def test_times_travel_with_the_message(self, qworker: Qworker, shop: Path) -> None:
        eta, expires = "2020-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"
        qworker(*SHOP, "call", "cli_shop.add", "--eta", eta, "--expires", expires)
        qworker(*SHOP, "call", "cli_shop.add", "--expires", "3600", "--countdown", "0")

        first, second = reserve(shop, "celery")
        assert (first["headers"]["eta"], first["headers"]["expires"]) == (eta, expires)
        assert second["headers"]["expires"] is not None

    def test_an_unknown_task_is_sent_with_a_remark_that_names_the_nearest(self, qworker: Qworker, shop: Path) -> None:
        ended = qworker(*SHOP, "call", "cli_shop.ad")

        assert ended.code == 0
        assert "did you mean 'cli_shop.add'" in ended.error_line
        assert qworker("-q", *SHOP, "call", "cli_shop.ad").err == ""
        assert len(reserve(shop, "celery")) == 2

    def test_a_broker_is_enough_to_send_by_name(self, qworker: Qworker, shop: Path) -> None:
        ended = qworker("call", "-b", f"sqlite:///{shop}/q.db", "any.task", "--queue", "q1")

        assert (ended.code, ended.err) == (0, "")
        assert len(reserve(shop, "q1")) == 1

    def test_wait_shows_the_result(self, qworker: Qworker, shop: Path) -> None:
        store(shop, "t1", "SUCCESS", {"total": 3})

        assert qworker("-q", *SHOP, "call", "cli_shop.add", "--task-id", "t1", "--wait") == (0, '{"total": 3}\n', "")

    def test_wait_says_how_the_task_failed_and_exits_1(self, qworker: Qworker, shop: Path) -> None:
        store(shop, "t1", "FAILURE", {"exc_type": "ValueError", "exc_message": ["bad"], "exc_module": "builtins"})

        ended = qworker("-q", *SHOP, "call", "cli_shop.add", "--task-id", "t1", "--wait")
        assert (ended.code, ended.out) == (1, "")
        assert ended.error_line == "qworker: task t1: FAILURE: ValueError: bad"

    def test_waiting_ends_with_the_time_out(self, qworker: Qworker, shop: Path) -> None:
        ended = qworker("-q", *SHOP, "call", "cli_shop.add", "--task-id", "t1", "--timeout", "0.05")

        assert ended.code == 1
        assert "t1 had no result after 0.05 s" in ended.error_line


class TestResult:
    def test_a_success(self, qworker: Qworker, shop: Path) -> None:
        store(shop, "t1", "SUCCESS", [1, "grün"])

        assert qworker(*SHOP, "result", "t1") == (0, 'status: SUCCESS\nresult: [1, "grün"]\n', "")

    def test_a_failure_with_its_traceback(self, qworker: Qworker, shop: Path) -> None:
        description = {"exc_type": "ValueError", "exc_message": ["bad"], "exc_module": "builtins"}
        store(shop, "t1", "FAILURE", description, "Traceback:\n  line\n")

        assert qworker(*SHOP, "result", "t1") == (1, "status: FAILURE\nerror: ValueError: bad\n", "")
        assert qworker(*SHOP, "result", "t1", "--traceback").out.endswith("bad\nTraceback:\n  line\n")

    def test_a_task_nobody_has_heard_of_is_pending(self, qworker: Qworker, shop: Path) -> None:
        assert qworker(*SHOP, "result", "t1") == (0, "status: PENDING\n", "")

    def test_a_store_is_enough(self, qworker: Qworker, shop: Path) -> None:
        store(shop, "t1", "SUCCESS", 5)

        ended = qworker("--result-backend", f"sqlite:///{shop}/q.db", "result", "t1", "--wait")
        assert ended == (0, "status: SUCCESS\nresult: 5\n", "")

    def test_an_application_without_results_says_so(self, qworker: Qworker, shop: Path) -> None:
        ended = qworker(*SHOP, "--result-backend", "disabled://", "result", "t1")

        assert ended.code == 4
        assert "keeps no results" in ended.error_line


class TestQueues:
    def test_the_depth_of_each_queue_of_the_application(self, qworker: Qworker, shop: Path) -> None:
        for _ in range(12):
            qworker(*SHOP, "call", "cli_shop.boom")

        assert qworker(*SHOP, "queues").out == "queue   waiting\ncelery        0\nhipri        12\n"
        assert json.loads(qworker(*SHOP, "queues", "--json").out) == {"celery": 0, "hipri": 12}
        assert json.loads(qworker("queues", *SHOP, "--json", "-Q", "hipri,x").out) == {"hipri": 12, "x": 0}

    def test_purge_deletes_with_force(self, qworker: Qworker, shop: Path) -> None:
        qworker(*SHOP, "call", "cli_shop.boom")
        qworker(*SHOP, "call", "cli_shop.add")

        assert qworker(*SHOP, "purge", "-f", "-X", "celery") == (0, "deleted 1 messages from hipri\n", "")
        assert (len(reserve(shop, "celery")), len(reserve(shop, "hipri"))) == (1, 0)

    @pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("y\n", 0), ("", 1)])
    def test_purge_asks(
        self, qworker: Qworker, shop: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
    ) -> None:
        qworker(*SHOP, "call", "cli_shop.add")
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))

        ended = qworker(*SHOP, "purge", "-Q", "celery")

        assert ended.code == left
        assert "Delete 1 waiting messages from celery" in ended.err
        assert len(reserve(shop, "celery")) == left


class TestDead:
    def test_list_has_a_line_for_each_message(self, qworker: Qworker, shop: Path) -> None:
        qworker(*SHOP, "call", "cli_shop.boom", "--task-id", "t1")
        bury(shop, "hipri")

        head, line = qworker(*SHOP, "dead", "list").out.splitlines()
        assert head.split() == ["queue", "id", "task", "reason", "crashes", "time"]
        assert line.split()[:5] == ["hipri", "t1", "cli_shop.boom", "crashed", "0"]

    def test_list_as_json_has_an_object_on_each_line(self, qworker: Qworker, shop: Path) -> None:
        for task_id in ("t1", "t2"):
            qworker(*SHOP, "call", "cli_shop.boom", "--task-id", task_id)
        bury(shop, "hipri")

        found = [json.loads(line) for line in qworker(*SHOP, "dead", "list", "--json").out.splitlines()]
        assert {letter["id"] for letter in found} == {"t1", "t2"}
        assert len(qworker(*SHOP, "dead", "list", "--json", "--limit", "1").out.splitlines()) == 1

    def test_nothing_dead(self, qworker: Qworker, shop: Path) -> None:
        assert qworker(*SHOP, "dead", "list") == (0, "no dead letters\n", "")
        assert qworker(*SHOP, "dead", "list", "--json") == (0, "", "")

    def test_show_tells_all(self, qworker: Qworker, shop: Path) -> None:
        qworker(*SHOP, "call", "cli_shop.boom", "--task-id", "t1")
        bury(shop, "hipri")

        out = qworker(*SHOP, "dead", "show", "t1").out
        for line in ("id: t1", "cause: signal 9 (SIGKILL)", "peak_kib: 12345", "traceback:\nTraceback:\n  line"):
            assert line in out
        assert '"task": "cli_shop.boom"' in out

    def test_show_of_a_stranger(self, qworker: Qworker, shop: Path) -> None:
        ended = qworker(*SHOP, "dead", "show", "nobody")

        assert ended.code == 1
        assert "no dead letter 'nobody'" in ended.error_line

    def test_a_message_that_is_no_envelope_can_be_listed_and_shown(self, qworker: Qworker, shop: Path) -> None:
        from qworker.transports import Envelope

        transport = open_transport(f"sqlite:///{shop}/q.db")
        transport.connect()
        transport.publish([Envelope("hipri", b"\xff garbage")])
        transport.close()
        bury(shop, "hipri")

        assert "crashed" in qworker(*SHOP, "dead", "list").out
        token = json.loads(qworker(*SHOP, "dead", "list", "--json").out)["token"]
        assert "headers: null" in qworker(*SHOP, "dead", "show", token).out


class TestReport:
    def test_versions_settings_and_queues_without_secrets(self, qworker: Qworker, shop: Path) -> None:
        app = find_app("cli_shop")
        app.conf.update(redis_password="hunter2", broker_transport_options={"lease_timeout": 20})

        out = qworker(*SHOP, "--result-backend", "redis://:hunter2@localhost/1", "report").out
        for line in ("qworker: ", "python: ", "cpus: ", "setting redis_password: **", "queue hipri: 0 waiting"):
            assert line in out
        assert "setting result_backend: redis://:**@localhost/1" in out
        assert "hunter2" not in out

    def test_no_application_is_needed(self, qworker: Qworker) -> None:
        code, out, err = qworker("report")

        assert (code, err) == (0, "")
        assert "platform: " in out

    def test_a_broker_that_is_away_is_part_of_the_report(self, qworker: Qworker, shop: Path) -> None:
        code, out, _ = qworker(*SHOP, "-b", "redis://127.0.0.1:1/0", "report")

        assert code == 0
        assert "broker: redis://127.0.0.1:1/0 cannot be reached" in out


class TestErrors:
    def test_a_missing_module_is_3(self, qworker: Qworker, shop: Path) -> None:
        ended = qworker("-A", "cli_shp", "queues")

        assert ended.code == 3
        assert "did you mean 'cli_shop'?" in ended.error_line

    def test_a_module_that_fails_is_3_with_the_users_part_of_the_traceback(self, qworker: Qworker, shop: Path) -> None:
        (shop / "cli_broken.py").write_text("def total():\n    return 1 / 0\n\ntotal()\n")

        code, _, err = qworker("-A", "cli_broken", "queues")
        assert code == 3
        assert "cli_broken.py" in err
        assert "qworker: importing 'cli_broken' failed: ZeroDivisionError: division by zero" in err
        assert "importlib" not in err
        assert "loader.py" not in err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("-b", "rdis://:hunter2@h/0", "queues"), "did you mean 'redis'?"),
            (("--config", "cli_conf", "queues"), "task_default_quue"),
            (("--workdir", "/nonexistent", "queues"), "--workdir /nonexistent: No such file or directory"),
        ],
    )
    def test_a_configuration_that_cannot_be_used_is_4(
        self, qworker: Qworker, shop: Path, arguments: tuple[str, ...], words: str
    ) -> None:
        (shop / "cli_conf.py").write_text("task_default_quue = 'x'\n")
        ended = qworker(*SHOP, *arguments)

        assert ended.code == 4
        assert words in ended.error_line
        assert "hunter2" not in ended.err

    def test_a_broker_out_of_reach_is_69(self, qworker: Qworker, shop: Path) -> None:
        ended = qworker(*SHOP, "-b", "redis://:hunter2@127.0.0.1:1/0", "queues")

        assert ended.code == 69
        assert "redis://:**@127.0.0.1:1/0 cannot be reached" in ended.error_line

    def test_a_bug_is_70_and_shows_its_traceback_only_when_debugging(
        self, qworker: Qworker, shop: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_arguments: Any, **_more: Any) -> None:
            raise RuntimeError("never seen before")

        monkeypatch.setattr(qworker_root(), "main", broken)
        quiet, loud = qworker("queues"), qworker("-l", "debug", "queues")

        assert (quiet.code, loud.code) == (70, 70)
        assert "internal error: RuntimeError: never seen before" in quiet.error_line
        assert "Traceback (most recent call last)" in loud.err

    def test_ctrl_c_is_no_traceback(self, qworker: Qworker, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_arguments: Any, **_more: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(qworker_root(), "main", interrupted)

        assert qworker("queues") == (130, "", "qworker: interrupted\n")

    def test_a_reader_that_goes_away_is_no_error_message(self, shop: Path) -> None:
        read_end, write_end = os.pipe()
        os.close(read_end)
        ended = subprocess.run(
            [sys.executable, "-m", "qworker", "report"], stdout=write_end, stderr=subprocess.PIPE, timeout=30
        )
        os.close(write_end)

        assert ended.stderr == b""


def qworker_root() -> Any:
    return qworker.cli.entry.root
