"""The instants in which messages get lost or repeated elsewhere, one by one: frozen, killed, or met by odd messages."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import celery
import kombu
import pytest
import redis

from qworker.tasks.encoding import encode_task
from qworker.transports import Envelope

from support import Shop, wait_until
from support.celery_client import celery_client
from support.chaos.scale import new_seed

_MORE_TASKS = '''

@app.task(bind=True)
def tagged(self, text):
    """Notes which message this is: one that is published twice has two delivery tags."""
    note(f"{text} {self.request.properties['delivery_tag']}")


@app.task(bind=True, max_retries=1)
def tagged_retry(self, text):
    note(f"{text}{self.request.retries} {self.request.properties['delivery_tag']}")
    if not self.request.retries:
        raise self.retry(countdown=0)


@app.task
def takes_all_down(text):
    """Ends the whole worker, as the memory killer of a container does, when a file tells it to."""
    import psutil

    note(text)
    wait_for("down")
    (_FOLDER / "down").unlink()
    spawner = psutil.Process().parent()
    for process in (spawner.parent(), spawner, psutil.Process()):
        process.kill()
'''


@pytest.fixture
def client_app(redis_url: str) -> Iterator[celery.Celery]:
    with celery_client(redis_url, redis_url) as app:
        yield app


@pytest.fixture
def scan_as_celery(redis_url: str) -> Iterator[Callable[[float], None]]:
    """Restore what a Celery worker with this visibility time-out would take for abandoned."""
    with kombu.Connection(redis_url) as connection:
        channel = connection.channel()

        def scan(visibility_timeout_s: float) -> None:
            channel.qos.visibility_timeout = visibility_timeout_s
            channel.qos.restore_visible()

        yield scan


def add_tasks(shop: Shop) -> None:
    """Give the workers that start from now on some tasks more."""
    shop.write((shop.folder / "shop.py").read_text() + _MORE_TASKS)


def test_a_worker_that_is_frozen_while_it_waits_and_then_killed_takes_no_message_along(any_shop: Shop) -> None:
    worker = any_shop.worker("-c", "1", "-Q", "hipri")
    any_shop.freeze(*worker.tree())
    assert any_shop.depth() == 0  # the broker has now seen whatever it had asked for before
    any_shop.task("noted").delay("here")
    worker.kill_whole()
    assert (any_shop.depth(), any_shop.in_flight()) == (1, 0)
    any_shop.worker("-c", "1", "-Q", "hipri")
    wait_until(lambda: any_shop.ran() == ["here"], "the message has run")


@pytest.mark.parametrize("without", ["delivery_tag", "delivery_info", "everything"])
def test_a_message_that_does_not_say_where_it_came_from_runs(any_shop: Shop, without: str) -> None:
    envelope = json.loads(encode_task("shop.noted", ["ran"], task_id="bare", queue="hipri"))
    if without == "everything":
        envelope = {"body": '[["ran"], {}, {}]', "headers": {"task": "shop.noted", "id": "bare"}}
    else:
        del envelope["properties"][without]
    any_shop.publish(Envelope("hipri", json.dumps(envelope).encode()))
    any_shop.worker("-c", "1", "-Q", "hipri")
    assert any_shop.app.AsyncResult("bare").get(timeout=10) is None
    assert any_shop.ran() == ["ran"]


def test_nothing_that_holds_messages_ever_expires(shop: Shop, client: redis.Redis) -> None:
    shop.worker("-c", "1", "-Q", "hipri", "--prefetch-multiplier", "1")
    shop.app.send_task("no.such")
    shop.task("noted").apply_async(("later",), countdown=600)
    for name in ("go", "held", "waits", "waits"):
        shop.task("gate").delay(name)
    wait_until(lambda: shop.ran() == ["start go"] and shop.dead(), "one runs, one is dead")
    wait_until(lambda: client.exists("hipri", "unacked", "qworker:delayed") == 3, "one waits, one is delayed")
    volatile = {key for key in client.keys("*") if client.pttl(key) >= 0}
    assert {key for key in volatile if not key.startswith(b"celery-task-meta-")} <= {
        b"qworker:recovery",
        b"unacked_mutex",
    }
    for name in ("go", "held", "waits"):
        (shop.folder / name).touch()


def test_the_members_of_a_chord_are_set_aside_untouched_and_none_of_them_runs(
    shop: Shop, client: redis.Redis, client_app: celery.Celery
) -> None:
    """Counting members is to come; until then nothing runs whose end nobody would hear of."""
    header = [client_app.signature("shop.noted", (text,), queue="hipri") for text in ("a", "b")]
    celery.chord(header, app=client_app)(client_app.signature("shop.noted", queue="hipri"))
    published = client.lrange("hipri", 0, -1)
    shop.worker("-c", "1", "-Q", "hipri")
    wait_until(lambda: len(shop.dead()) == 2, "both are set aside")
    assert {letter.reason for letter in shop.dead()} == {"unsupported_canvas"}
    assert sorted(letter.raw for letter in shop.dead()) == sorted(published)
    assert shop.ran() == []
    ids = [json.loads(raw)["headers"]["id"] for raw in published]
    assert [shop.app.AsyncResult(task_id).status for task_id in ids] == ["FAILURE"] * 2


def publish_chain(shop: Shop, name: str) -> None:
    link = {"task": "shop.tagged", "args": [f"second {name}"], "immutable": True, "options": {"task_id": f"2-{name}"}}
    shop.publish(
        Envelope("hipri", encode_task("shop.tagged", [f"first {name}"], task_id=name, queue="hipri", chain=[link]))
    )


def publish_retry(shop: Shop, name: str) -> None:
    shop.publish(Envelope("hipri", encode_task("shop.tagged_retry", [f"{name} try"], task_id=name, queue="hipri")))


@pytest.mark.parametrize(
    ("publish", "first", "second"),
    [(publish_chain, "first {}", "second {}"), (publish_retry, "{} try0", "{} try1")],
    ids=["chain", "retry"],
)
def test_what_follows_a_run_is_published_once_wherever_the_worker_is_killed(
    any_shop: Shop, publish: Callable[[Shop, str], None], first: str, second: str
) -> None:
    """When a run ends, its result is stored, its successor published, its message acked: a kill may fall in between."""
    add_tasks(any_shop)
    seed = new_seed()
    print(f"seed: run this test again with QWORKER_CHAOS_SEED={seed}")  # noqa: T201
    rng = random.Random(seed)
    lease = {"TEST_LEASE": "1"}
    names = [f"n{number}" for number in range(3)]
    for name in names:
        worker = any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
        publish(any_shop, name)
        wait_until(lambda n=name: first.format(n) in " ".join(any_shop.ran()), "the first part has run")
        time.sleep(rng.uniform(0, 0.012))
        worker.kill_whole()
    any_shop.worker("-c", "1", "-Q", "hipri", env=lease)

    def messages(text: str) -> set[str]:
        return {line for line in any_shop.ran() if line.startswith(text + " ")}

    wait_until(lambda: all(messages(second.format(name)) for name in names), "every second part has run")
    wait_until(any_shop.is_settled, "all is settled")
    assert [len(messages(second.format(name))) for name in names] == [1] * 3


@pytest.mark.parametrize("task", ["shop.once", "shop.noted"])
def test_a_link_to_a_key_that_is_no_queue_holds_up_nobody(shop: Shop, task: str) -> None:
    link = {"task": "shop.noted", "args": ["next"], "immutable": True, "options": {"queue": "unacked"}}
    (shop.folder / "x").touch()
    shop.publish(Envelope("hipri", encode_task(task, ["x"], task_id="first", queue="hipri", chain=[link])))
    worker = shop.worker("-c", "2", "-Q", "hipri")
    shop.task("gate").delay("go")  # the key of what is in flight exists
    (letter,) = wait_until(shop.dead, "the link is set aside")
    assert (letter.queue, letter.reason) == ("unacked", "queue_unusable")
    (shop.folder / "go").touch()
    assert shop.task("add").delay(1).get(timeout=10) == 1
    assert "refused" not in worker.log


def test_a_message_that_takes_whole_workers_down_is_dead_lettered_after_the_third(any_shop: Shop) -> None:
    add_tasks(any_shop)
    lease = {"TEST_LEASE": "1"}
    any_shop.app.send_task("shop.takes_all_down", ("poison",), task_id="poison")
    innocent = [f"innocent {number}" for number in range(4)]
    for text in innocent:
        any_shop.task("noted").delay(text)
    for count in range(1, 4):
        worker = any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
        wait_until(lambda n=count: any_shop.ran().count("poison") == n, "it runs")  # type: ignore[misc]
        wait_until(lambda: any_shop.marked() == 1, "the broker knows that it runs")
        (any_shop.folder / "down").touch()
        worker.wait()
    any_shop.worker("-c", "1", "-Q", "hipri", env=lease)
    (letter,) = wait_until(any_shop.dead, "the poison is dead-lettered")
    assert (letter.reason, letter.crashes, letter.details["id"]) == ("crashed", 3, "poison")
    assert any_shop.app.AsyncResult("poison").status == "FAILURE"
    wait_until(lambda: len(any_shop.ran()) == 7, "the others have run")
    assert sorted(any_shop.ran()) == sorted([*innocent, *["poison"] * 3])


def test_a_task_far_longer_than_lease_and_visibility_time_out_runs_once(
    shop: Shop, client_app: celery.Celery, scan_as_celery: Callable[[float], None]
) -> None:
    source = (shop.folder / "shop.py").read_text()
    # A worker that stands still for longer than its lease rightly loses the message to the other one.
    options = "\napp.conf.broker_transport_options = {'lease_timeout': 5, 'visibility_timeout': 4}\n"
    shop.write(source + options)
    for _ in range(2):
        shop.worker("-c", "1", "-Q", "hipri")
    result = shop.task("gate").delay("go")
    client_app.send_task("shop.noted", ("later",), queue="hipri", countdown=10)
    wait_until(lambda: shop.ran() == ["start go"], "the task runs")
    deadline = time.monotonic() + 11
    while time.monotonic() < deadline:
        scan_as_celery(5)
        time.sleep(0.1)
    (shop.folder / "go").touch()
    assert result.get(timeout=10) == "go"
    wait_until(shop.is_settled, "all is settled")
    assert sorted(shop.ran()) == ["end go", "later", "start go"]


def test_messages_reach_their_queue_and_come_back_to_it_without_any_binding(
    shop: Shop, client: redis.Redis, scan_as_celery: Callable[[float], None]
) -> None:
    worker = shop.worker("-c", "1", "-Q", "hipri")
    shop.task("gate").delay("go")
    wait_until(lambda: shop.ran() == ["start go"], "the task runs")
    for key in client.keys("_kombu.binding*"):
        client.delete(key)
    shop.task("noted").delay("sent without bindings")
    wait_until(lambda: shop.in_flight() == 2, "both are held")
    worker.kill_whole()
    scan_as_celery(-1)
    assert (shop.in_flight(), shop.depth()) == (0, 2)


def test_the_ack_of_a_celery_worker_does_not_take_our_message_away(
    shop: Shop, redis_url: str, client: redis.Redis, scan_as_celery: Callable[[float], None]
) -> None:
    """Both know the message by its delivery tag; in flight with us it has a name of its own."""
    shop.task("gate").delay("go")
    with kombu.Connection(redis_url) as connection:
        (channel, message) = receive(connection)
        scan_as_celery(-1)
        worker = shop.worker("-c", "1", "-Q", "hipri", env={"TEST_LEASE": "1"})
        wait_until(lambda: shop.ran() == ["start go"], "the restored message runs with us")
        message.ack()
        channel.close()
    assert shop.in_flight() == 1
    worker.kill_whole()
    shop.worker("-c", "1", "-Q", "hipri", env={"TEST_LEASE": "1"})
    wait_until(lambda: shop.ran() == ["start go"] * 2, "it has come back after the kill")
    (shop.folder / "go").touch()


def receive(connection: kombu.Connection) -> tuple[Any, Any]:
    """Take the one message as a Celery worker does, and hold it."""
    channel = connection.channel()
    message = kombu.Queue("hipri", channel=channel).get(accept=["json"])
    assert message is not None
    return channel, message
