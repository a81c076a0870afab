from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from qworker import (
    App,
    ConfigError,
    EncodeError,
    Ignore,
    MaxRetriesExceededError,
    Reject,
    Signature,
    Task,
    chain,
    signature,
)
from qworker.tasks.publishing import Prepared

from support.samples import published, without_tag


@pytest.fixture
def app() -> App:
    app = App("wapp", task_always_eager=True)
    app.task(name="wapp.add")(lambda x, y: x + y)
    app.task(name="wapp.boom")(lambda *_: 1 / 0)
    app.task(name="wapp.ident")(lambda *args: args)
    return app


class Sending(App):
    """An app that keeps what it would publish."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.sent: list[bytes] = []

    def publish(self, prepared: Prepared, *, add_to_parent: bool = True) -> Any:
        self.sent.append(prepared.envelope.raw)
        return prepared.task_id


def test_an_eager_call_runs_here(app: App) -> None:
    result = app.tasks["wapp.add"].delay(1, 2)
    assert (result.get(), result.status, result.ready(), result.successful()) == (3, "SUCCESS", True, True)


def test_an_eager_failure_is_kept_or_raised(app: App) -> None:
    boom = app.tasks["wapp.boom"]
    result = boom.delay()
    assert (result.status, result.failed(), result.get(propagate=False)) == ("FAILURE", True, result.result)
    assert "ZeroDivisionError" in str(result.traceback)
    with pytest.raises(ZeroDivisionError):
        result.get()
    with pytest.raises(ZeroDivisionError):
        boom.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ZeroDivisionError):
        boom.delay()


def test_an_eager_call_gets_its_arguments_as_a_worker_would(app: App) -> None:
    assert app.tasks["wapp.ident"].delay((1, 2), date(2030, 1, 1)).get() == ([1, 2], date(2030, 1, 1))
    with pytest.raises(EncodeError):
        app.tasks["wapp.ident"].delay({1})


def test_an_eager_run_retries_at_once(app: App) -> None:
    seen = []

    @app.task(bind=True, max_retries=2)
    def flaky(self: Task[..., Any], n: int) -> str:
        seen.append((self.request.id, self.request.retries, self.request.is_eager))
        if self.request.retries < n:
            raise self.retry(countdown=1000)
        return "done"

    assert flaky.apply((2,), task_id="i").get() == "done"
    assert seen == [("i", 0, True), ("i", 1, True), ("i", 2, True)]
    with pytest.raises(MaxRetriesExceededError):
        flaky.apply((3,)).get()


@pytest.mark.parametrize(("error", "status"), [(Ignore(), "IGNORED"), (Reject("x"), "REJECTED")])
def test_eager_ignore_and_reject_are_states(app: App, error: Exception, status: str) -> None:
    @app.task
    def task() -> None:
        raise error

    assert task.delay().status == status


def test_an_eager_run_tells_the_handlers(app: App) -> None:
    told: list[Any] = []

    class Telling(Task[..., Any]):
        def before_start(self, *about: Any) -> None:
            told.append(("before_start", *about))

        def on_success(self, retval: Any, *about: Any) -> None:
            told.append(("on_success", retval))

        def on_failure(self, exc: BaseException, *about: Any) -> None:
            told.append(("on_failure", exc.args))

        def after_return(self, status: str, *about: Any) -> None:
            told.append(("after_return", status))

    @app.task(base=Telling)
    def task(ok: bool) -> str:
        if not ok:
            raise ValueError("bad")
        return "fine"

    task.apply((True,), task_id="i")
    task.apply((False,), task_id="i")
    assert told == [
        ("before_start", "i", (True,), {}),
        ("on_success", "fine"),
        ("after_return", "SUCCESS"),
        ("before_start", "i", (False,), {}),
        ("on_failure", ("bad",)),
        ("after_return", "FAILURE"),
    ]


def test_eager_links_are_called(app: App) -> None:
    seen = []
    app.task(name="note")(lambda *args: seen.append(args))
    app.tasks["wapp.add"].apply_async((1, 2), link=app.signature("note", ("a",)))
    app.tasks["wapp.boom"].apply_async((), task_id="i", link_error=[app.signature("note")])
    assert seen == [(3, "a"), ("i",)]


def test_an_eager_chain_passes_results_on_and_stops_at_a_failure(app: App) -> None:
    add, boom = app.tasks["wapp.add"], app.tasks["wapp.boom"]
    assert chain(add.s(1, 2), add.s(3), add.si(5, 5))().get() == 10
    assert (add.s(1, 2) | boom.s() | add.s(1)).delay().failed()


def test_an_eager_run_inside_another_knows_its_parent(app: App) -> None:
    @app.task(bind=True)
    def inner(self: Task[..., Any]) -> Any:
        return self.request.root_id, self.request.parent_id

    @app.task
    def outer() -> Any:
        return inner.delay().get()

    assert outer.apply(task_id="o").get() == ["o", "o"] or outer.apply(task_id="o").get() == ("o", "o")


def test_a_signature_is_the_dict_that_the_wire_carries(app: App) -> None:
    sig = app.tasks["wapp.add"].s(1, y=2).set(queue="q")
    assert json.dumps(sig) == (
        '{"task": "wapp.add", "args": [1], "kwargs": {"y": 2}, "options": {"queue": "q"}, '
        '"subtask_type": null, "immutable": false}'
    )
    assert repr(sig) == "wapp.add(1, y=2)"


def test_a_clone_takes_more_and_leaves_the_original_alone(app: App) -> None:
    sig = signature("wapp.add", (1,), app=app)
    copy = sig.clone((0,), {"z": 3}, countdown=5)
    assert (copy.args, copy.kwargs, copy.options) == ((0, 1), {"z": 3}, {"countdown": 5})
    assert (sig.args, sig.kwargs, sig.options) == ((1,), {}, {})
    fixed = app.tasks["wapp.add"].si(1, 2).clone((9,), {"z": 1})
    assert (fixed.args, fixed.kwargs, fixed.immutable) == ((1, 2), {}, True)


def test_calling_a_signature_runs_it_here(app: App) -> None:
    assert app.tasks["wapp.add"].s(2)(1) == 3


def test_links_are_kept_once(app: App) -> None:
    sig, other = app.tasks["wapp.add"].s(1), app.tasks["wapp.ident"].s()
    sig.link(other)
    sig.link(other)
    assert sig.on_error(other) is sig
    assert sig.options == {"link": [other], "link_error": [other]}


def test_a_signature_from_the_wire_is_a_signature_again(app: App) -> None:
    sent = app.tasks["wapp.add"].s(1) | app.tasks["wapp.ident"].s()
    again = Signature.from_dict(json.loads(json.dumps(sent)), app)
    assert isinstance(again, chain)
    assert [link.task for link in again.tasks] == ["wapp.add", "wapp.ident"]
    assert Signature.from_dict({"task": "t"}, app).args == []


def test_a_chain_of_chains_is_one_chain(app: App) -> None:
    add = app.tasks["wapp.add"]
    whole = chain([add.s(1, 2), add.s(3) | add.s(4)]) | add.s(5)
    assert [link.args for link in whole.tasks] == [(1, 2), (3,), (4,), (5,)]
    assert repr(whole) == "wapp.add(1, 2) | wapp.add(3) | wapp.add(4) | wapp.add(5)"


def test_a_chain_of_nothing_and_a_group_in_a_chain_are_refused(app: App) -> None:
    with pytest.raises(ValueError, match="at least one"):
        chain()
    with pytest.raises(ConfigError, match="group inside a chain"):
        chain({"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": []}})


CHAINS = {
    "chain(add.s(1,2), add.s(3), add.s(4))()": lambda add, err: chain(add.s(1, 2), add.s(3), add.s(4))(),
    "chain(add.s(1,2), add.s(3)).apply_async(link_error=errcb.s())": lambda add, err: chain(
        add.s(1, 2), add.s(3)
    ).apply_async(link_error=err.s()),
    "add.apply_async((1,2), link=add.s(10))": lambda add, err: add.apply_async((1, 2), link=add.s(10)),
    "add.si(1,2).delay()  # immutable": lambda add, err: add.si(1, 2).delay(),
}


@pytest.mark.parametrize("call", CHAINS)
def test_a_chain_is_sent_as_celerys_is(call: str) -> None:
    app = Sending("wapp")
    add, errcb = app.task(name="wapp.add")(lambda x, y: x + y), app.task(name="wapp.errcb")(lambda *_: None)
    expected = json.loads(next(raw for said, raw in published("02") if said == call))
    CHAINS[call](add, errcb)
    (raw,) = app.sent
    assert _without_ids(without_tag(raw)) == _without_ids(without_tag(json.dumps(expected).encode()))


def _without_ids(raw: bytes) -> Any:
    import base64
    import re

    envelope = json.loads(raw)
    envelope["body"] = base64.b64decode(envelope["body"]).decode()
    text = json.dumps(envelope)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID", text)
    return re.sub(r"gen\d+@[^\"]+", "ORIGIN", text)


def test_a_shadow_name_is_made_for_each_call() -> None:
    class Named(Task[..., Any]):
        def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str:
            return f"method-{args[0]}"

    app = Sending("t")
    app.task(name="a", shadow_name=lambda task, args, kwargs, options: f"{task.name}-{args[0]}")(len).delay("x")
    app.task(name="b", base=Named)(len).delay("x")
    assert b'"shadow": "a-x"' in app.sent[0]
    assert b'"shadow": "method-x"' in app.sent[1]


def test_the_last_links_id_is_the_chains() -> None:
    app = Sending("t")
    whole = chain(app.signature("a"), app.signature("b"))
    assert whole.apply_async(task_id="last", link=app.signature("c"), queue="q").id == "last"
    assert b'"routing_key": "q"' in app.sent[0]
