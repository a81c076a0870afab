"""What is compared: how each tool is started, how its messages look, and how to see what is left to do.

Every tool gets two worker processes that run one task at a time, a quiet log, and the settings that make it fastest.
Messages are made from one that the tool's own client published, with fresh ids: filling a queue costs no client's time.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

APPS = Path(__file__).resolve().parent / "apps"

Command = tuple[Any, ...]


@dataclass(frozen=True)
class Tool:
    """One column of the table. `messages(task, count)` yields, per message, the Redis commands that publish it."""

    name: str
    title: str
    argv: tuple[str, ...]
    messages: Callable[[str, int], Iterator[list[Command]]]
    left: Callable[[Any], int]  # messages that wait or are in flight, by a connection to the broker
    drain_count: int
    tasks: tuple[str, ...] = ("noop", "probe")
    env: dict[str, str] = field(default_factory=dict)

    @property
    def is_installed(self) -> bool:
        """Tell whether this environment has the tool."""
        return importlib.util.find_spec(self.name) is not None


def _script(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line of a console script of this environment, or of its module where it has none."""
    script = Path(sys.executable).with_name(name)
    return (str(script), *arguments) if script.exists() else (sys.executable, "-m", name, *arguments)


def _app(name: str) -> Any:
    if str(APPS) not in sys.path:
        sys.path.insert(0, str(APPS))
    return importlib.import_module(f"{name}_app")


def _celery_messages(task: str, count: int) -> Iterator[list[Command]]:
    """Celery's bytes (about 963 each), for Celery and for qworker."""
    app = _app("celery")
    with app.app.connection_for_write() as connection:
        getattr(app, task).apply_async((1, 2), connection=connection)
        envelope: bytes = connection.default_channel.client.rpop("bench")
    parsed, text = json.loads(envelope), envelope.decode()
    task_id, tag = parsed["headers"]["id"], parsed["properties"]["delivery_tag"]
    for _ in range(count):
        fresh = text.replace(task_id, str(uuid.UUID(int=_next_number())))
        yield [("LPUSH", "bench", fresh.replace(tag, str(uuid.UUID(int=_next_number()))))]


_number = uuid.uuid4().int >> 1


def _next_number() -> int:
    global _number  # uuid4 for each of 240 000 ids would take longer than the drain
    _number += 1
    return _number


def _celery_left(conn: Any) -> int:
    waiting, in_flight = conn.pipeline(transaction=False).llen("bench").hlen("unacked").execute()
    return int(waiting + in_flight)


def _dramatiq_messages(task: str, count: int) -> Iterator[list[Command]]:
    actor = getattr(_app("dramatiq"), task)
    for _ in range(count):
        redis_id = str(uuid.UUID(int=_next_number()))
        message = actor.message(1, 2).copy(options={"redis_message_id": redis_id})
        yield [("HSET", "dramatiq:bench.msgs", redis_id, message.encode()), ("RPUSH", "dramatiq:bench", redis_id)]


def _dramatiq_left(conn: Any) -> int:
    return int(conn.hlen("dramatiq:bench.msgs"))


def _huey_messages(task: str, count: int) -> Iterator[list[Command]]:
    app = _app("huey")
    for _ in range(count):
        yield [("LPUSH", app.huey.storage.queue_key, app.huey.serialize_task(getattr(app, task).s(1, 2)))]


def _huey_left(conn: Any) -> int:
    return int(conn.llen("huey.redis.bench"))


def _rq_messages(task: str, count: int) -> Iterator[list[Command]]:
    app = _app("rq")
    app.delay(getattr(app, task), 1, 2)
    job_id = app.queue.connection.rpop("rq:queue:bench").decode()
    fields = app.queue.connection.hgetall(f"rq:job:{job_id}")
    for _ in range(count):
        fresh = str(uuid.UUID(int=_next_number()))
        pairs = [part for pair in fields.items() for part in pair]
        yield [("HSET", f"rq:job:{fresh}", *pairs), ("RPUSH", "rq:queue:bench", fresh)]


def _rq_left(conn: Any) -> int:
    waiting, in_flight = conn.pipeline(transaction=False).llen("rq:queue:bench").zcard("rq:wip:bench").execute()
    return int(waiting + in_flight)


def all_tools(broker_url: str) -> list[Tool]:
    """Return every tool that this environment has, Celery first."""
    quiet = ("-c", "2", "-Q", "bench", "-l", "ERROR")
    lean = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    simple = ("-w", "rq.worker.SimpleWorker")  # no fork per task: several times faster than rq's default
    tools = [
        Tool(
            "celery",
            "Celery prefork",
            _script("celery", "-A", "celery_app", "worker", *quiet, *lean),
            _celery_messages,
            _celery_left,
            4_000,
            ("noop", "answer", "probe"),
        ),
        Tool(
            "qworker",
            "qworker",
            _script("qworker", "-A", "qworker_app", *quiet, "-b", broker_url),
            _celery_messages,
            _celery_left,
            120_000,
            ("noop", "answer", "probe"),
        ),
        Tool(
            "dramatiq",
            "dramatiq",
            _script("dramatiq", "dramatiq_app", "--processes", "2", "--threads", "1", "--skip-logging"),
            _dramatiq_messages,
            _dramatiq_left,
            25_000,
            env={"dramatiq_queue_prefetch": "1000"},
        ),
        Tool(
            "huey",
            "huey",
            _script("huey_consumer", "huey_app.huey", "-w", "2", "-k", "process", "-n", "-q", "-g", "TERM"),
            _huey_messages,
            _huey_left,
            15_000,
        ),
        Tool(
            "rq",
            "rq (SimpleWorker)",
            _script("rq", "worker-pool", "bench", "-n", "2", "-q", "-P", ".", "-u", broker_url, *simple),
            _rq_messages,
            _rq_left,
            1_200,
        ),
    ]
    return [tool for tool in tools if tool.is_installed]
