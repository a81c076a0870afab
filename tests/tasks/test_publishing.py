"""What a call becomes: an envelope with its queue, priority and times, or an error that says what is wrong."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from qworker import App, ConfigError, Task
from qworker.tasks import context as contexts
from qworker.tasks.codec import decode
from qworker.tasks.context import Context
from qworker.tasks.message import Message
from qworker.tasks.publishing import prepare
from qworker.tasks.routing import Route, find_route
from qworker.tasks.serializers import accepted_types
from qworker.transports import Envelope

JSON = accepted_types(["json"])


def read(raw: bytes) -> Message:
    return decode(raw, accept=JSON)


def prepared(app: App | None = None, **options: Any) -> tuple[Envelope, Message]:
    envelope = prepare(app or App("t"), options.pop("name", "t.task"), **options).envelope
    return envelope, read(envelope.raw)


def a_task(**options: Any) -> Task[..., Any]:
    return App("t").task(name="t.task", **options)(lambda *args, **kwargs: None)


def test_a_countdown_is_a_moment_in_utc_and_the_broker_is_told() -> None:
    envelope, message = prepared(countdown=30, now=1_000_000.5)
    assert message.headers["eta"] == "1970-01-12T13:47:10.500000+00:00"
    assert (message.eta, envelope.due) == (1_000_030.5, 1_000_030.5)


def test_a_naive_eta_is_a_time_in_the_settings_zone() -> None:
    moment = datetime(2030, 1, 1)
    envelope, message = prepared(App("t", timezone="Europe/Berlin"), eta=moment)
    assert message.headers["eta"] == "2030-01-01T00:00:00"
    assert envelope.due == moment.replace(tzinfo=timezone.utc).timestamp() - 3600


@pytest.mark.parametrize(
    ("expires", "epoch"),
    [
        (60, 1060.0),
        (timedelta(minutes=1), 1060.0),
        (datetime.fromtimestamp(1060, timezone.utc), 1060.0),
        ("1970-01-01T00:17:40+00:00", 1060.0),
    ],
)
def test_expires_may_be_said_in_four_ways(expires: Any, epoch: float) -> None:
    _, message = prepared(expires=expires, now=1000.0)
    assert (message.expires, message.properties["expiration"]) == (epoch, "60000")


def test_expired_already_is_sent_with_nothing_left() -> None:
    _, message = prepared(expires=-5, now=1000.0)
    assert (message.expires, message.properties["expiration"]) == (995.0, "0")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"countdown": 1e20}, ValueError, "no usable time"),
        ({"countdown": float("nan")}, ValueError, "no usable time"),
        ({"expires": "soon"}, ValueError, "no usable time"),
        ({"eta": "soon"}, ValueError, "no usable time"),
        ({"task_id": ""}, ValueError, "task_id must be a string"),
        ({"task_id": 5}, ValueError, "task_id must be a string"),
        ({"args": "abc"}, TypeError, "args must be a list or tuple"),
        ({"kwargs": [1]}, TypeError, "kwargs must be a dict"),
        ({"priority": -1}, ValueError, "priority must be"),
        ({"priority": "high"}, ValueError, "priority must be"),
        ({"headers": {"id": "x"}}, ValueError, "cannot replace"),
        ({"coutdown": 5}, TypeError, "did you mean 'countdown'"),
        ({"producer": object()}, TypeError, "connection of its own"),
        ({"correlation_id": "x"}, TypeError, "set by the message"),
        ({"exchange": "named"}, ValueError, "only the default exchange"),
        ({"soft_time_limit": 9, "time_limit": 5}, ValueError, "never reached"),
        ({"serializer": "jsn"}, ConfigError, "did you mean 'json'"),
        ({"compression": "zip"}, ConfigError, "there is no compression"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        prepared(**options)


@pytest.mark.parametrize("call", [{"time_limit": 1}, {"soft_time_limit": 9}])
def test_a_call_may_set_one_limit_whatever_the_settings_say_of_the_other(call: dict[str, float]) -> None:
    app = App("t", broker="memory://", task_time_limit=4, task_soft_time_limit=2)
    task = app.task(name="t.a")(print)
    message = read(prepare(app, "t.a", task=task, **call).envelope.raw)
    assert message.headers["timelimit"] == [call.get("time_limit", 4), call.get("soft_time_limit", 2)]


def test_other_options_become_properties_in_celerys_place() -> None:
    _, message = prepared(MessageGroupId="g", customer=5, retry=False)
    assert list(message.properties)[:4] == ["correlation_id", "reply_to", "MessageGroupId", "customer"]


def test_stamps_are_headers() -> None:
    _, message = prepared(stamped_headers=["customer"], customer="acme")
    assert (message.headers["stamped_headers"], message.headers["stamps"]) == (["customer"], {"customer": "acme"})


@pytest.mark.parametrize(
    ("settings", "task_options", "call", "queue"),
    [
        ({}, {}, {}, "celery"),
        ({"task_default_queue": "d"}, {}, {}, "d"),
        ({"task_routes": {"t.*": "r"}}, {}, {}, "r"),
        ({"task_routes": {"t.*": "r"}}, {"queue": "mine"}, {}, "mine"),
        ({"task_routes": {"t.*": "r"}}, {"queue": "mine"}, {"queue": "call"}, "call"),
        ({}, {"routing_key": "mine"}, {}, "mine"),
        ({}, {}, {"routing_key": "call", "exchange": "call"}, "call"),
    ],
)
def test_the_queue_is_the_calls_the_tasks_the_routes_or_the_default(
    settings: dict[str, Any], task_options: dict[str, Any], call: dict[str, Any], queue: str
) -> None:
    task = a_task(**task_options)
    task.app.conf.update(settings)
    envelope, message = prepared(task.app, task=task, **call)
    assert envelope.queue == message.queue == queue


@pytest.mark.parametrize(
    ("settings", "task_options", "call", "priority"),
    [
        ({}, {}, {}, 0),
        ({"task_default_priority": 4}, {}, {}, 4),
        ({"task_default_priority": 4, "task_routes": {"t.task": {"priority": 5}}}, {}, {}, 5),
        ({"task_routes": {"t.task": {"priority": 5}}}, {"priority": 6}, {}, 6),
        ({}, {"priority": 6}, {"priority": 0}, 0),
    ],
)
def test_the_priority_is_the_calls_the_tasks_the_routes_or_the_default(
    settings: dict[str, Any], task_options: dict[str, Any], call: dict[str, Any], priority: int
) -> None:
    task = a_task(**task_options)
    task.app.conf.update(settings)
    assert prepared(task.app, task=task, **call)[0].priority == priority


@pytest.mark.parametrize(
    ("routes", "route"),
    [
        (None, Route()),
        ({"a.b": "exact", "a.*": "glob"}, Route("exact")),
        ({"a.*": {"queue": "glob", "priority": 3}}, Route("glob", 3)),
        ({"x.*": "no"}, Route()),
        ([{"x": "no"}, {"a.b": "second"}], Route("second")),
        ([("a.*", "first"), ("a.b", "exact")], Route("exact")),
        ({re.compile(r"a\.."): "pattern"}, Route("pattern")),
        (lambda name, args, kwargs, options: {"queue": f"{name}-{args[0]}"}, Route("a.b-1")),
        ([lambda *_: None, {"a.b": "second"}], Route("second")),
        (f"{__name__}.no_such_router", ConfigError),
        ([5], ConfigError),
        (5, ConfigError),
        ({"a.b": 5}, ConfigError),
    ],
)
def test_routes_are_understood_in_every_form(routes: Any, route: Any) -> None:
    if route is ConfigError:
        with pytest.raises(ConfigError, match="task_routes"):
            find_route(routes, "a.b", (1,), {}, {})
    else:
        assert find_route(routes, "a.b", (1,), {}, {}) == route


def test_a_call_out_of_a_task_continues_its_workflow() -> None:
    task = a_task()
    entered = contexts.enter(task, Context(id="i", root_id="r", called_directly=False, delivery_info={"priority": 7}))
    try:
        _, message = prepared()
        task.app.conf.task_inherit_parent_priority = True
        envelope, _ = prepared(task.app)
    finally:
        contexts.leave(entered)
    assert (message.headers["root_id"], message.headers["parent_id"], message.priority) == ("r", "i", 0)
    assert envelope.priority == 7
    assert prepared(task_id="alone")[1].headers["root_id"] == "alone"
