"""One task id, one message: `unique=True` through everything that can happen to a message, with real workers."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support import Shop, wait_until
from support.celery_worker import celery_worker


def send(shop: Shop, name: str, *args: Any, **options: Any) -> Any:
    return shop.task(name).apply_async(args, **{"task_id": "one", "unique": True, **options})


def test_a_task_id_is_published_once_while_it_waits(any_shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "qworker.tasks"):
        first, second = send(any_shop, "add", 1, 2), send(any_shop, "add", 30, 40)
    assert any_shop.depth() == 1
    assert "one is not published" in caplog.text
    any_shop.worker()
    assert (first.get(timeout=10), second.get(timeout=10)) == (3, 3)


def test_a_task_id_is_published_once_while_it_is_delayed(any_shop: Shop) -> None:
    send(any_shop, "noted", "first", countdown=1.0)
    send(any_shop, "noted", "second")
    send(any_shop, "noted", "third", countdown=0.1)
    any_shop.worker()
    wait_until(lambda: any_shop.ran() == ["first"], "the delayed one has run", 10)
    wait_until(lambda: any_shop.in_flight() == 0, "it is settled")
    send(any_shop, "noted", "fourth")
    wait_until(lambda: any_shop.ran() == ["first", "fourth"], "after its end the id may be used again", 10)


def test_a_task_id_is_published_once_while_it_runs_and_again_after_its_end(any_shop: Shop) -> None:
    any_shop.worker()
    first = send(any_shop, "gate", "go")
    wait_until(lambda: any_shop.ran() == ["start go"], "the first runs")
    assert send(any_shop, "gate", "go").id == first.id
    assert any_shop.depth() == 0
    (any_shop.folder / "go").touch()
    assert first.get(timeout=10) == "go"
    wait_until(lambda: any_shop.in_flight() == 0, "the first is settled")
    send(any_shop, "gate", "go")
    wait_until(lambda: any_shop.ran() == ["start go", "end go"] * 2, "it has run again", 10)


def test_a_retry_keeps_the_id_taken(any_shop: Shop) -> None:
    any_shop.worker()
    first = send(any_shop, "gated_retry", "go", 4)
    tries = [f"try {n}" for n in range(5)]
    for n in range(5):
        while any_shop.ran() != tries[: n + 1]:  # the next attempt waits for its time, or is about to start
            send(any_shop, "noted", "not published")
        send(any_shop, "noted", "not published")
        (any_shop.folder / f"go {n}").touch()
    assert first.get(timeout=10) == 4
    wait_until(any_shop.is_settled, "the last attempt is settled")
    assert any_shop.ran() == tries


def test_a_failure_and_a_dead_letter_free_the_id(any_shop: Shop) -> None:
    any_shop.worker()
    with pytest.raises(ValueError, match="bad thing"):
        send(any_shop, "boom").get(timeout=10)
    wait_until(lambda: any_shop.in_flight() == 0, "it is settled")
    send(any_shop, "kill_child", "dies")
    wait_until(lambda: len(any_shop.dead()) == 1, "the message is in the dead-letter store", 20)
    send(any_shop, "noted", "lives")
    wait_until(lambda: any_shop.ran() == ["dies"] * 3 + ["lives"], "the id may be used again", 10)


def test_a_crash_of_the_child_keeps_the_id_taken(any_shop: Shop) -> None:
    any_shop.worker("-c", "1", "-Q", "hipri")
    first = send(any_shop, "kill_child_once", "x")
    wait_until(lambda: any_shop.ran() == ["x", "x"], "it runs again")
    assert first.get(timeout=10) == "x"
    wait_until(lambda: any_shop.in_flight() == 0, "it is settled")
    send(any_shop, "noted", "again")
    wait_until(lambda: any_shop.ran() == ["x", "x", "again"], "the id may be used again", 10)


def test_a_crash_of_the_whole_worker_keeps_the_id_taken(any_shop: Shop) -> None:
    env = {"TEST_LEASE": "1"}
    doomed = any_shop.worker("-c", "1", "-Q", "hipri", env=env)
    first = send(any_shop, "gate", "go")
    wait_until(lambda: any_shop.ran() == ["start go"], "it runs")
    doomed.process.kill()
    doomed.wait()
    wait_until(lambda: not doomed.survivors(), "its children end with it")
    send(any_shop, "noted", "second")
    assert any_shop.depth() == 0
    any_shop.worker("-c", "1", "-Q", "hipri", env=env)
    wait_until(lambda: any_shop.ran() == ["start go"] * 2, "another worker runs it", 20)
    send(any_shop, "noted", "third")
    (any_shop.folder / "go").touch()
    assert first.get(timeout=10) == "go"
    wait_until(lambda: any_shop.in_flight() == 0, "it is settled")
    assert any_shop.ran() == ["start go", "start go", "end go"]
    assert any_shop.depth() == 0


def test_an_id_that_was_revoked_may_be_used_again(any_shop: Shop) -> None:
    send(any_shop, "noted", "first", countdown=600)
    assert any_shop.app.control.revoke("one") == 1
    send(any_shop, "noted", "second")
    any_shop.worker()
    wait_until(lambda: any_shop.ran() == ["second"], "the second runs", 10)


def test_without_an_id_of_its_own_every_call_is_published(any_shop: Shop) -> None:
    for _ in range(3):
        any_shop.task("add").apply_async((1,), unique=True)
    assert any_shop.depth() == 3


def test_processes_that_publish_at_the_same_instant_publish_once(any_shop: Shop) -> None:
    script = (
        "import sys, time, shop\n"
        "shop.app.send_task('shop.add', (0,), task_id='warm')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "for n in range(50):\n"
        "    shop.add.apply_async((n,), task_id=f't{n}', unique=True, countdown=600 * (n % 2))\n"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with_shop = [
        subprocess.Popen([sys.executable, "-c", script], cwd=any_shop.folder, env=os.environ, **pipes) for _ in range(4)
    ]
    for producer in with_shop:
        assert producer.stdout.readline() == "ready\n"
    for producer in with_shop:
        producer.stdin.write("\n")
        producer.stdin.flush()
    for producer in with_shop:
        producer.communicate(timeout=60)
        assert producer.returncode == 0
    assert any_shop.depth() == 4 + 25
    assert any_shop.app.control.revoke([f"t{n}" for n in range(50)]) == 25


def test_after_a_celery_worker_ran_it_the_id_is_taken_until_its_time_is_over(
    shop: Shop, redis_url: str, tmp_path: Path
) -> None:
    with celery_worker(tmp_path, redis_url, redis_url):
        assert shop.task("add").delay(0).get(timeout=60) == 0  # now it is up
        began = time.monotonic()
        first = send(shop, "add", 1, 2, unique_for=20)
        assert first.get(timeout=30) == 3
        took = time.monotonic() - began
        assert took < 18, "the machine is too slow for this test"
        send(shop, "add", 1, 2)
        assert shop.depth() == 0

        def is_published() -> bool:
            first.forget()
            return bool(send(shop, "add", 3, 4, countdown=60) and shop.app.control.revoke("one"))

        wait_until(is_published, "the lock has ended", 30)
        assert time.monotonic() - began >= 20
