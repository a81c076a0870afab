"""`qworker doctor`: what it finds well, what it complains of, and its exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .conftest import Qworker
from support import RedisServer
from support.moto_server import MotoServer


def complaints(out: str) -> list[str]:
    return re.findall(r"^CHECK (.*)$", out, re.MULTILINE)


def test_a_healthy_application_has_nothing_to_complain_of(qworker: Qworker, shop: Path) -> None:
    ended = qworker("-A", "cli_shop", "doctor")
    assert (ended.code, complaints(ended.out)) == (0, [])
    assert "queue: hipri, 0 waiting" in ended.out
    assert "app: cli_shop, 2 tasks" in ended.out


def test_a_redis_that_may_lose_messages_is_named_with_what_to_set(qworker: Qworker, shop: Path) -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
        ended = qworker("-A", "cli_shop", "-b", server.url, "doctor")
        assert ended.code == 1
        evicts, forgets = complaints(ended.out)
        assert "set maxmemory-policy noeviction" in evicts
        assert "set appendonly yes" in forgets
        with server.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "yes")
        assert qworker("-A", "cli_shop", "-b", server.url, "doctor").code == 0


def test_everything_that_is_out_of_reach_is_told_without_its_password(qworker: Qworker, shop: Path) -> None:
    url = "redis://:geheim@127.0.0.1:1/0"
    ended = qworker("-A", "cli_shop", "-b", url, "--result-backend", url, "doctor")
    assert ended.code == 1
    assert [line.split(":")[0] for line in complaints(ended.out)] == ["broker", "results"]
    assert "geheim" not in ended.out + ended.err


def test_an_application_that_cannot_be_imported_is_the_import_error_itself(qworker: Qworker, shop: Path) -> None:
    assert qworker("-A", "nothing_here", "doctor").code == 3


def test_sqs_is_looked_at_queue_by_queue(qworker: Qworker, shop: Path, sqs: MotoServer) -> None:
    for name in ("celery", "dead"):
        sqs.queue(name)
    ended = qworker("-A", "cli_shop", "-b", sqs.url, "doctor")
    assert ended.code == 1
    assert [line.partition(":")[0] for line in complaints(ended.out)] == ["queue"]
    assert "there is no SQS queue 'hipri'" in ended.out
    assert "queue: celery, 0 waiting" in ended.out
    sqs.queue("hipri", RedrivePolicy=json.dumps({"deadLetterTargetArn": sqs.arn("dead"), "maxReceiveCount": 5}))
    (complaint,) = complaints(qworker("-A", "cli_shop", "-b", sqs.url, "doctor").out)
    assert "the queue 'celery' has no redrive policy" in complaint
    assert qworker("-A", "cli_shop", "-b", sqs.url, "doctor", "-Q", "hipri").code == 0


def test_a_time_limit_that_sqs_cannot_wait_for_is_named(qworker: Qworker, shop: Path, sqs: MotoServer) -> None:
    sqs.queue("hipri")
    (shop / "cli_long.py").write_text(
        f"from qworker import App\napp = App('cli_long', broker={sqs.url!r})\n"
        "app.conf.broker_transport_options = {'dead_letter_queue': 'hipri'}\n"
        "@app.task(queue='hipri', time_limit=50000)\ndef long():\n    pass\n"
    )
    (complaint,) = complaints(qworker("-A", "cli_long", "doctor", "-Q", "hipri").out)
    assert "50000 s is above the 43200 s" in complaint
