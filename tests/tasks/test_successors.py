"""What follows a run is what a Celery worker would publish."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from qworker import App
from qworker.tasks.codec import decode
from qworker.tasks.context import Context
from qworker.tasks.encoding import encode_retry, encode_task
from qworker.tasks.message import Message
from qworker.tasks.outcome_meta import fields_of
from qworker.tasks.retrying import RetryPlan
from qworker.tasks.serializers import accepted_types
from qworker.tasks.successors import after_failure, after_success, chain_ids, next_attempt, unsupported

from support.samples import load, published, pushed, stored, without_tag

JSON = accepted_types(["json"])


def read(raw: bytes) -> Message:
    return decode(raw, accept=JSON)


def context_of(message: Message, queue: str = "celery") -> Context:
    return Context.for_message(message, hostname="w1@host", queue=queue)


def comparable(raw: bytes, **changes: Any) -> dict[str, Any]:
    """An envelope with its body decoded, without what differs between producers."""
    envelope = json.loads(raw)
    envelope["body"] = json.loads(base64.b64decode(envelope["body"]))
    envelope["headers"].update(origin="", **changes)
    envelope["properties"].update(delivery_tag="", reply_to="")
    return envelope


def wire_app() -> App:
    app = App("wapp")
    app.task(name="wapp.add")(lambda x, y: x + y)
    app.task(name="wapp.ident")(lambda *args: args)
    return app


def test_a_retry_is_celerys_byte_for_byte() -> None:
    first, second = pushed("16")
    eta = read(second).eta
    assert eta is not None
    written = encode_retry(read(first), retries=1, eta=eta, now=eta - 1)
    assert without_tag(written) == without_tag(second)


@pytest.mark.parametrize("properties", [None, {}])
def test_a_message_without_properties_can_be_retried(properties: Any) -> None:
    raw = json.dumps({"body": "[[1], {}, {}]", "headers": {"task": "t", "id": "i"}, "properties": properties}).encode()
    again = read(encode_retry(read(raw), retries=1, eta=2e9, now=1e9, queue="q"))
    assert (again.id, again.args, again.retries, again.queue) == ("i", [1], 1, "q")


@pytest.mark.parametrize("odd", [5, ["a"], {"__type__": "datetime", "__value__": "0"}])
def test_ids_that_are_no_texts_are_left_out_of_what_follows_and_of_the_result(odd: Any) -> None:
    headers = {"task": "wapp.ident", "id": "i", "root_id": odd, "parent_id": odd, "group": odd}
    body = [[1], {}, {"chain": [{"task": "wapp.add", "args": [1]}]}]
    message = read(json.dumps({"body": json.dumps(body), "headers": headers}).encode())
    context = context_of(message)
    (envelope,) = after_success(message, 1, wire_app(), context)
    assert read(envelope.raw).headers["root_id"] == "i"
    fields = fields_of(context)
    assert (fields.group_id, fields.parent_id) == (None, None)


def test_an_errback_that_cannot_be_sent_is_only_told(caplog: pytest.LogCaptureFixture) -> None:
    errbacks = [{"task": "no.such", "options": {"priority": "high"}}]
    rest = [{"task": "wapp.add", "options": {"task_id": "rest"}}]
    body = [[1], {}, {"errbacks": errbacks, "chain": rest}]
    message = read(json.dumps({"body": json.dumps(body), "headers": {"task": "wapp.ident", "id": "i"}}).encode())
    envelopes, others = after_failure(message, ValueError("x"), wire_app(), context_of(message))
    assert envelopes == []
    assert [task_id for task_id, _ in others] == ["rest"]
    assert "cannot be sent" in caplog.text


def test_a_retry_of_a_retry_changes_only_time_and_count() -> None:
    second = read(pushed("16")[1])
    third = read(encode_retry(second, retries=2, eta=2e9, now=1e9))
    assert (third.retries, third.eta, third.id, third.headers["parent_id"]) == (2, 2e9, second.id, second.id)
    assert list(third.properties) == list(second.properties)


def test_a_retry_keeps_what_a_chord_member_carries() -> None:
    step = next(step for step in load("08") if "chord(" in step["step"])
    first, second = (dict(message["message_without_body"]) for message in step["published"][:2])
    first["body"] = base64.b64encode(json.dumps(step["published"][0]["decoded_body"]).encode()).decode()
    message = read(json.dumps(first).encode())
    again = json.loads(encode_retry(message, retries=1, eta=read_eta(second), now=0.0))
    assert again.pop("body") == first["body"]
    again["properties"]["delivery_tag"] = second["properties"]["delivery_tag"]
    assert again == second


def read_eta(envelope: dict[str, Any]) -> float:
    from qworker.tasks.moments import parse_moment

    return parse_moment(envelope["headers"]["eta"], "UTC")


def test_a_retry_copies_the_body_as_it_came_even_if_it_is_compressed() -> None:
    raw = encode_task("t", ({"__type__": "bytes"}, "x" * 100), task_id="i", queue="q", compression="gzip")
    assert json.loads(encode_retry(read(raw), retries=1, eta=1.0, now=0.0))["body"] == json.loads(raw)["body"]


def test_a_retry_with_other_arguments_keeps_serializer_compression_and_embed() -> None:
    link = {"task": "x", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    raw = encode_task("t", (1,), {"a": 2}, task_id="i", queue="q", compression="bzip2", callbacks=[link])
    again = read(encode_retry(read(raw), retries=1, eta=1.0, now=0.0, args=(5,)))
    assert (again.args, again.kwargs, again.embed["callbacks"]) == ([5], {"a": 2}, [link])
    assert (again.headers["argsrepr"], again.headers["compression"]) == ("(5,)", "application/x-bz2")


def test_a_retry_of_protocol_1_is_a_message_of_protocol_2() -> None:
    ((_, raw),) = published("03")
    again = read(encode_retry(read(raw), retries=1, eta=1.0, now=0.0))
    assert (again.protocol, again.retries, again.task, again.args) == (2, 1, "wapp.add", [1, 2])
    assert again.id == read(raw).id


def test_a_retry_of_a_plain_text_body_is_base64() -> None:
    raw = json.dumps({"body": "[[1], {}, {}]", "headers": {"task": "t", "id": "i"}, "properties": {}}).encode()
    assert read(encode_retry(read(raw), retries=1, eta=1.0, now=0.0)).args == [1]


def test_a_retry_forgets_that_its_message_was_redelivered_but_not_when_it_expires() -> None:
    raw = encode_task("t", task_id="i", queue="q", expires="2030-01-01T00:00:00+00:00", headers={"redelivered": True})
    message = read(raw)
    assert message.expires is not None
    again = read(encode_retry(message, retries=1, eta=1.0, now=message.expires - 2))
    assert "redelivered" not in again.headers
    assert (again.expires, again.properties["expiration"]) == (message.expires, "2000")


def test_the_next_attempt_goes_to_the_queue_that_the_message_came_from() -> None:
    message = read(encode_task("t", task_id="i", queue="named", priority=3))
    envelope = next_attempt(message, RetryPlan(1, due=50.0), App("t"), context_of(message, "hipri"))
    assert (envelope.queue, envelope.priority, envelope.due) == ("hipri", 3, 50.0)
    assert read(envelope.raw).queue == "hipri"


def test_the_next_attempt_takes_the_options_of_retry() -> None:
    message = read(encode_task("t", task_id="i", queue="q", time_limit=9, soft_time_limit=8))
    options = {"queue": "slow", "priority": 6, "soft_time_limit": 2, "shadow": "s", "headers": {"x": 1}, "expires": 100}
    envelope = next_attempt(message, RetryPlan(1, 50.0, options=options), App("t"), context_of(message))
    again = read(envelope.raw)
    assert (envelope.queue, envelope.priority, again.time_limits) == ("slow", 6, (9, 2))
    assert (again.headers["shadow"], again.headers["x"], again.expires is not None) == ("s", 1, True)


def test_a_chain_goes_on_as_celerys_does() -> None:
    first, second, third = pushed("13")
    app = wire_app()
    for before, result, after in ((first, 3, second), (second, 6, third)):
        message = read(before)
        context = context_of(message)
        (envelope,) = after_success(message, result, app, context)
        assert comparable(envelope.raw) == comparable(after)
        expected = next(json.loads(meta) for meta in stored("13") if json.loads(meta)["task_id"] == message.id)
        assert json.loads(json.dumps(fields_of(context).children)) == expected["children"]
    assert after_success(read(third), 10, app, context_of(read(third))) == []


def test_callbacks_are_published_as_celerys_are() -> None:
    first, *expected = pushed("18")
    message = read(first)
    context = context_of(message)
    envelopes = after_success(message, 3, wire_app(), context)
    ids = [read(envelope.raw).id for envelope in envelopes]
    group = read(envelopes[0].raw).headers["group"]
    assert [comparable(envelope.raw) for envelope in envelopes] == [
        _as(comparable(raw), task_id, group) for raw, task_id in zip(expected, ids, strict=True)
    ]
    assert context.children == [[[group, None], [[[task_id, None], None] for task_id in ids]]]


def _as(envelope: dict[str, Any], task_id: str, group: str) -> dict[str, Any]:
    """The envelope under the random ids of another run."""
    envelope["headers"].update(id=task_id, group=group)
    envelope["properties"]["correlation_id"] = task_id
    return envelope


def test_one_callback_is_no_group() -> None:
    raw = next(raw for call, raw in published("02") if call == "add.apply_async((1,2), link=add.s(10))")
    (envelope,) = after_success(read(raw), 3, wire_app(), context_of(read(raw)))
    follower = read(envelope.raw)
    assert (follower.args, follower.headers["group"], follower.headers["parent_id"]) == ([3, 10], None, read(raw).id)


def test_a_group_at_the_end_of_a_chain_is_published_under_its_id() -> None:
    raw = next(raw for call, raw in published("02") if call.startswith("chain(add.s(1,2), group("))
    link = read(raw).embed["chain"][0]
    envelopes = after_success(read(raw), 3, wire_app(), context_of(read(raw)))
    messages = [read(envelope.raw) for envelope in envelopes]
    assert [m.args for m in messages] == [[3, 3], [3, 4]]
    assert [(m.headers["group"], m.headers["group_index"]) for m in messages] == [
        (link["options"]["task_id"], 0),
        (link["options"]["task_id"], 1),
    ]
    assert [m.id for m in messages] == [member["options"]["task_id"] for member in link["kwargs"]["tasks"]]


def test_a_chain_as_callback_starts_with_its_first_call() -> None:
    app = wire_app()
    links = app.signature("a", (1,)) | app.signature("b", task_id="id-b")
    message = read(encode_task("t", task_id="i", queue="q", callbacks=[links]))
    (envelope,) = after_success(message, "r", app, context_of(message))
    follower = read(envelope.raw)
    assert (follower.task, follower.args) == ("a", ["r", 1])
    assert [link["task"] for link in follower.embed["chain"]] == ["b"]


def test_followers_go_where_the_workers_routes_say_unless_they_name_a_queue() -> None:
    app = App("t", task_routes={"a": "routed"}, task_default_queue="default")
    links = [app.signature("a"), app.signature("b"), app.signature("a", queue="named", priority=2, countdown=60)]
    message = read(encode_task("t", task_id="i", queue="q", priority=5, callbacks=links))
    envelopes = after_success(message, None, app, context_of(message))
    assert [(e.queue, e.priority, e.due is None) for e in envelopes] == [
        ("routed", 0, True),
        ("default", 0, True),
        ("named", 2, False),
    ]


def test_followers_inherit_the_priority_only_when_told_to() -> None:
    app = App("t", task_inherit_parent_priority=True)
    message = read(encode_task("t", task_id="i", queue="q", priority=5, callbacks=[app.signature("a")]))
    (envelope,) = after_success(message, None, app, context_of(message))
    assert envelope.priority == 5


def test_the_root_of_a_workflow_is_handed_on() -> None:
    app = App("t")
    message = read(encode_task("t", task_id="i", queue="q", root_id="root", callbacks=[app.signature("a")]))
    (envelope,) = after_success(message, None, app, context_of(message))
    assert (read(envelope.raw).headers["root_id"], read(envelope.raw).headers["parent_id"]) == ("root", "i")


def test_an_errback_of_one_argument_is_sent_the_id_as_celery_does() -> None:
    first, expected = pushed("17b")
    app = App("wapp")
    app.task(name="wapp.errcb1")(lambda task_id: None)
    (envelope,), others = after_failure(read(first), ValueError(), app, context_of(read(first)))
    headers = read(envelope.raw).headers
    again = comparable(expected, id=headers["id"], group=headers["group"])
    again["properties"]["correlation_id"] = headers["id"]
    assert comparable(envelope.raw) == again
    assert others == []


def test_an_errback_that_takes_the_error_is_called_here() -> None:
    app = App("wapp")
    calls = []

    @app.task(name="wapp.errcb1")
    def errback(request: Any, exc: Any, traceback: Any) -> None:
        calls.append((request.id, exc, traceback))

    message, error = read(pushed("17b")[0]), ValueError("x")
    assert after_failure(message, error, app, context_of(message), "text") == ([], [])
    assert calls == [(message.id, error, "text")]


def test_an_errback_that_fails_is_told_and_nothing_else_happens(caplog: pytest.LogCaptureFixture) -> None:
    app = App("wapp")

    @app.task(name="wapp.errcb1")
    def errback(request: Any, exc: Any, traceback: Any) -> None:
        raise RuntimeError("the errback's own")

    message = read(pushed("17b")[0])
    assert after_failure(message, ValueError(), app, context_of(message)) == ([], [])
    assert "the errback's own" in caplog.text


def test_a_bound_errback_is_sent_and_not_called() -> None:
    app = App("wapp")
    app.task(name="wapp.errcb1", bind=True)(lambda self, task_id: None)
    message = read(pushed("17b")[0])
    envelopes, _ = after_failure(message, ValueError(), app, context_of(message))
    assert len(envelopes) == 1


def test_a_failure_fails_the_rest_of_the_chain() -> None:
    message = read(pushed("13")[0])
    envelopes, others = after_failure(message, ValueError("bad"), wire_app(), context_of(message), "trace")
    ids = ["2030f0df-5f97-46e7-8a1b-cdbdaf04c080", "622e8199-163f-4eca-b9fe-ed3f748e64c0"]
    assert (envelopes, [task_id for task_id, _ in others], chain_ids(message)) == ([], ids, ids)
    meta = json.loads(others[1][1])
    assert (meta["status"], meta["task_id"], meta["traceback"]) == ("FAILURE", ids[1], "trace")
    assert meta["result"] == {"exc_type": "ValueError", "exc_message": ["bad"], "exc_module": "builtins"}


def canvas(start: str) -> Message:
    return read(next(raw for call, raw in published("02") if call.startswith(start)))


@pytest.mark.parametrize(
    ("start", "is_supported"),
    [
        ("chain(add.s(1,2), add.s(3), add.s(4))()", True),
        ("chain(add.s(1,2), group(", True),
        ("group(", True),
        ("add.apply_async((1,2), link=[", True),
        ("chord([add.s(1,2), add.s(3,4)])", False),
        ("chain(group(add.s(1,2)", False),
        ("chord([chain(", False),
    ],
)
def test_a_message_is_known_beforehand_to_need_what_is_not_there(start: str, is_supported: bool) -> None:
    reason = unsupported(canvas(start))
    assert (reason is None) is is_supported
    assert is_supported or "chord" in str(reason)
