"""What the pages of a real worker say, in every phase of its life."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from qworker.tasks.publishing import prepare
from qworker.transports import Envelope

from support import RedisServer, Shop, wait_until
from support.asking import Metrics, get, metrics_of, sample, socket_of, status_of

NAMES = {
    *("qworker_slots", "qworker_broker_up", "qworker_last_fetch_age_seconds", "qworker_queue_depth"),
    *("qworker_queue_oldest_age_seconds", "qworker_child_memory_bytes", "qworker_build_info", "qworker_tasks_total"),
    *("qworker_task_runtime_seconds_bucket", "qworker_task_queue_wait_seconds_bucket", "qworker_dead_letters_total"),
    *("qworker_child_restarts_total", "qworker_recovered_messages_total", "qworker_task_cpu_seconds_total"),
}


def test_a_running_worker_is_alive_started_and_ready(shop: Shop) -> None:
    shop.worker()
    place = socket_of()
    answers = [get(place, path) for path in ("/livez", "/startupz", "/readyz")]
    assert answers == [(200, b"ok\n")] * 3


def test_a_worker_that_imports_is_alive_and_not_ready(shop: Shop) -> None:
    (shop.folder / "gate.py").write_text("import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n")
    source = (shop.folder / "shop.py").read_text()
    (shop.folder / "shop.py").write_text("import gate\n" + source)
    worker = shop.worker(ready=False)
    wait_until(lambda: "health, metrics and status" in worker.log, "the endpoint is there")
    place = socket_of()
    assert get(place, "/livez") == (200, b"ok\n")
    assert get(place, "/startupz")[0] == 503
    assert get(place, "/readyz") == (503, b"starting\n")
    assert status_of(place)["phase"] == "starting"
    assert sample(metrics_of(place), "qworker_broker_up") == 0
    (shop.folder / "go").touch()
    worker.wait_ready()
    assert get(place, "/readyz")[0] == 200


def test_a_worker_whose_broker_is_away_is_alive_and_says_why_it_is_not_ready(
    redis_shop: Shop, redis_server: RedisServer
) -> None:
    redis_shop.worker()
    place = socket_of()
    wait_until(lambda: sample(metrics_of(place), "qworker_queue_depth", queue="hipri") == 0, "a depth is told")
    redis_server.stop()
    try:
        wait_until(lambda: get(place, "/readyz")[0] == 503, "not ready")
        assert get(place, "/readyz")[1] == b"the broker is out of reach\n"
        assert get(place, "/livez")[0] == get(place, "/startupz")[0] == 200
        metrics = metrics_of(place)
        assert sample(metrics, "qworker_broker_up") == 0
        assert sample(metrics, "qworker_queue_depth", queue="hipri") is None
        answer = status_of(place)
        assert not answer["broker"]["up"]
        assert answer["broker"]["trouble"]
    finally:
        redis_server.start()
    wait_until(lambda: get(place, "/readyz")[0] == 200, "ready again", 30.0)


def test_a_worker_that_stops_is_alive_and_no_longer_ready(shop: Shop) -> None:
    worker = shop.worker()
    place = socket_of()
    shop.task("gate").delay("open")
    wait_until(lambda: shop.ran() == ["start open"], "the task runs")
    worker.signal(signal.SIGTERM)
    wait_until(lambda: get(place, "/readyz") == (503, b"warm\n"), "the stop is seen")
    assert get(place, "/livez")[0] == 200
    assert status_of(place)["stopping"]
    (shop.folder / "open").touch()
    assert worker.wait() == 0
    assert not os.path.exists(place.path)


def test_a_worker_that_was_told_to_be_quiet_is_not_ready(shop: Shop) -> None:
    worker = shop.worker()
    place = socket_of()
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: get(place, "/readyz") == (503, b"quiet\n"), "quiet")
    worker.signal(signal.SIGCONT)
    wait_until(lambda: get(place, "/readyz")[0] == 200, "running again")


def test_every_metric_is_there_and_prometheus_reads_it(shop: Shop) -> None:
    shop.worker()
    place = socket_of()
    shop.task("add").delay(1, 2)
    shop.task("boom").delay()
    shop.task("kill_child_once").delay("x")
    shop.task("rejects").delay()
    shop.task("noted").delay("last")

    def all_are_told() -> Metrics | None:
        metrics = metrics_of(place)
        runs = sum(value for (name, _), value in metrics.items() if name == "qworker_tasks_total")
        is_buried = sample(metrics, "qworker_dead_letters_total", reason="rejected", queue="hipri") is not None
        # What the broker is asked for is left out where it does not answer at once.
        return metrics if runs >= 6 and is_buried and "qworker_queue_depth" in {name for name, _ in metrics} else None

    metrics = wait_until(all_are_told, "all have run")
    assert metrics is not None
    assert {name for name, _ in metrics} >= NAMES
    where = {"queue": "hipri"}
    assert sample(metrics, "qworker_tasks_total", task="shop.add", outcome="succeeded", **where) == 1
    assert sample(metrics, "qworker_tasks_total", task="shop.boom", outcome="failed", **where) == 1
    assert sample(metrics, "qworker_tasks_total", task="shop.rejects", outcome="rejected", **where) == 1
    assert sample(metrics, "qworker_tasks_total", task="shop.kill_child_once", outcome="crashed", **where) == 1
    assert sample(metrics, "qworker_tasks_total", task="shop.kill_child_once", outcome="succeeded", **where) == 1
    assert sample(metrics, "qworker_task_runtime_seconds_count", task="shop.add", **where) == 1
    assert sample(metrics, "qworker_task_queue_wait_seconds_bucket", task="shop.add", le="+Inf", **where) == 1
    assert sample(metrics, "qworker_dead_letters_total", reason="rejected", **where) == 1
    assert sample(metrics, "qworker_child_restarts_total", reason="crashed") == 1
    assert sample(metrics, "qworker_recovered_messages_total", cause="child_lost") == 1


def test_an_unknown_task_does_not_become_a_label(shop: Shop) -> None:
    shop.worker()
    place = socket_of()
    for number in range(3):
        shop.app.send_task(f"nobody.{number}", queue="hipri")
    name = "qworker_tasks_total"
    wait_until(
        lambda: sample(metrics_of(place), name, task="other", queue="hipri", outcome="refused") == 3,
        "three are refused",
    )
    assert "nobody" not in get(place, "/metrics")[1].decode()


def test_what_waits_and_for_how_long(shop: Shop) -> None:
    shop.worker("-c", "1", "-Q", "hipri", "--prefetch-multiplier", "1", "-O", "fair")
    place = socket_of()
    shop.task("gate").delay("open")
    wait_until(lambda: shop.ran() == ["start open"], "the task runs")
    for _ in range(4):
        shop.task("add").delay(1)
    assert wait_until(lambda: sample(metrics_of(place), "qworker_queue_depth", queue="hipri"), "some wait") >= 3
    age = "qworker_queue_oldest_age_seconds"
    wait_until(lambda: (sample(metrics_of(place), age, queue="hipri") or 0) > 0, "the oldest of them ages")
    (shop.folder / "open").touch()
    wait_until(lambda: sample(metrics_of(place), "qworker_queue_depth", queue="hipri") == 0, "none waits")
    wait_until(lambda: sample(metrics_of(place), age, queue="hipri") == 0, "none is old")


def test_the_oldest_on_redis_tells_its_age_too(redis_shop: Shop) -> None:
    worker = redis_shop.worker()
    place = socket_of()
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: get(place, "/readyz") == (503, b"quiet\n"), "quiet")
    redis_shop.task("add").delay(1)
    name = "qworker_queue_oldest_age_seconds"
    wait_until(lambda: (sample(metrics_of(place), name, queue="hipri") or 0) > 0.01, "it ages")


def test_on_sqs_everything_is_told_but_the_oldest_age(sqs_shop: Shop) -> None:
    sqs_shop.worker()
    place = socket_of()
    assert get(place, "/readyz") == (200, b"ok\n")
    sqs_shop.task("add").delay(1)
    where = {"task": "shop.add", "queue": "hipri"}
    wait_until(lambda: sample(metrics_of(place), "qworker_task_queue_wait_seconds_count", **where) == 1, "it has run")
    wait_until(lambda: sample(metrics_of(place), "qworker_queue_depth", queue="hipri") is not None, "a depth is told")
    assert sample(metrics_of(place), "qworker_queue_oldest_age_seconds", queue="hipri") in (None, 0)
    assert status_of(place)["broker"]["up"]


def test_the_status_shows_what_each_child_runs_and_no_secret(shop: Shop) -> None:
    shop.worker(env={"QWORKER_HTTP_TOKEN": "hush-hush"})
    place = socket_of()
    called = shop.task("gate").delay("open")
    wait_until(lambda: shop.ran() == ["start open"], "the task runs")
    answer = status_of(place)
    (busy,) = [child for child in answer["children"] if child["state"] == "busy"]
    assert (busy["id"], busy["task"]) == (called.id, "shop.gate")
    assert busy["running_s"] >= 0
    assert abs(busy["since"] - time.time()) < 60
    assert busy["memory_bytes"]["uss"] > 0
    assert answer["slots"] == {"busy": 1, "idle": 1, "starting": 0, "leaving": 0}
    assert "hush-hush" not in json.dumps(answer)
    (shop.folder / "open").touch()


def test_each_run_is_accounted_for(shop: Shop) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri", "--log-format", "json")
    place = socket_of()
    (shop.folder / "open").touch()
    shop.task("eats").delay(40, "open")
    worker.wait_log('"task-succeeded"')
    (line,) = [json.loads(one) for one in worker.log.splitlines() if '"task-succeeded"' in one]
    assert line["cpu"] > 0
    assert line["peak_kib"] > 30 * 1024
    assert 0 <= line["wait"] < 60
    where = {"task": "shop.eats", "queue": "hipri"}
    wait_until(lambda: sample(metrics_of(place), "qworker_task_cpu_seconds_total", **where), "it is counted")
    metrics = metrics_of(place)
    assert (sample(metrics, "qworker_task_memory_growth_bytes", **where) or 0) > 30 * 2**20


def test_a_message_that_does_not_say_when_it_was_published_has_waited_since_it_was_taken(shop: Shop) -> None:
    shop.worker()
    place = socket_of()
    sent = json.loads(prepare(shop.app, "shop.add", (1,), {}).envelope.raw)
    sent["properties"]["delivery_tag"] = "9c56f879-c255-4f07-887e-e406727f91f9"
    shop.publish(Envelope("hipri", json.dumps(sent).encode()))
    where = {"task": "shop.add", "queue": "hipri"}
    wait_until(lambda: sample(metrics_of(place), "qworker_task_queue_wait_seconds_count", **where) == 1, "it has run")
    assert 0 <= (sample(metrics_of(place), "qworker_task_queue_wait_seconds_sum", **where) or 0) < 60


def test_the_titles_show_load_and_since_when(shop: Shop) -> None:
    worker = shop.worker("-c", "2", "-Q", "hipri", "-n", "desk@here")

    def title(pid: int) -> str:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()

    wait_until(lambda: title(worker.pid) == "qworker: master running 0/2 desk@here", "the idle title")
    called = shop.task("gate").delay("open")
    wait_until(lambda: title(worker.pid) == "qworker: master running 1/2 desk@here", "the busy title")

    def is_shown() -> bool:
        titles = [title(child.pid) for child in worker.children()]
        is_busy = any(f"{called.id} shop.gate since " in one for one in titles)
        return is_busy and any(one.endswith(" idle") for one in titles)

    wait_until(is_shown, "the children's titles tell who runs what")
    (shop.folder / "open").touch()
    wait_until(lambda: title(worker.pid) == "qworker: master running 0/2 desk@here", "the idle title again")
