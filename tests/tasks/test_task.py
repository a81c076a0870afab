from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest

from qworker import App, ConfigError, Task, current_task
from qworker.tasks import context as contexts
from qworker.tasks.codec import decode
from qworker.tasks.context import Context, running_context, task_info
from qworker.tasks.encoding import encode_task
from qworker.tasks.serializers import accepted_types
from qworker.tasks.typed_json import loads


def module_task(x: int) -> int:
    return x


class Entered:
    """As in a worker: `task` runs with this context."""

    def __init__(self, task: Task[..., Any], **fields: Any) -> None:
        self.task = task
        self.context = Context(**{"id": "i", "called_directly": False, **fields})

    def __enter__(self) -> Context:
        self.entered = contexts.enter(self.task, self.context)
        return self.context

    def __exit__(self, *_error: object) -> None:
        contexts.leave(self.entered)


def test_a_task_is_still_a_function() -> None:
    app = App("t")

    @app.task
    def add(x: int, y: int = 2) -> int:
        """Add."""
        return x + y

    assert (add(1), add(1, y=5), add.__doc__, add.__name__) == (3, 6, "Add.", "add")


def test_a_bound_task_gets_itself() -> None:
    app = App("t")

    @app.task(bind=True)
    def who(self: Task[..., Any], x: int) -> tuple[Any, int]:
        return self, x

    assert who(1) == (who, 1)


def test_options_not_given_are_the_settings_as_they_are_now() -> None:
    app = App("t")

    @app.task
    def plain() -> None: ...

    @app.task(acks_late=False, time_limit=5)
    def special() -> None: ...

    assert (plain.acks_late, plain.time_limit, special.acks_late, special.time_limit) == (True, None, False, 5)
    app.conf.update(task_acks_late=False, task_time_limit=9)
    assert (plain.acks_late, plain.time_limit, special.acks_late, special.time_limit) == (False, 9, False, 5)


def test_the_two_ack_options_fall_back_to_their_common_one() -> None:
    app = App("t", task_acks_on_failure_or_timeout=False)

    @app.task(acks_on_timeout=True)
    def one() -> None: ...

    @app.task(acks_on_failure_or_timeout=True)
    def two() -> None: ...

    assert (one.acks_on_failure, one.acks_on_timeout) == (False, True)
    assert (two.acks_on_failure, two.acks_on_timeout) == (True, True)


def test_a_base_class_sets_defaults_and_the_decorator_wins() -> None:
    class Base(Task[..., Any]):
        max_retries = 7
        queue = "base"

    app = App("t")
    task = app.task(base=Base, queue="mine")(module_task)
    assert isinstance(task, Base)
    assert (task.max_retries, task.queue) == (7, "mine")


def test_every_wrong_option_is_reported_with_the_nearest_name() -> None:
    app = App("t")
    with pytest.raises(ConfigError) as caught:
        app.task(max_retry=3, quueue="x", time_limit="long", autoretry_for=("OSError",))(module_task)
    first, second, third, fourth = caught.value.problems
    assert first.endswith("there is no task option 'max_retry'; did you mean 'max_retries'?")
    assert second.endswith("there is no task option 'quueue'; did you mean 'queue'?")
    assert third.endswith("time_limit='long' must be a number of seconds or a timedelta")
    assert fourth.endswith("autoretry_for=('OSError',) must be exception classes")
    assert app.tasks == {}


def test_later_options_are_accepted_and_kept() -> None:
    app = App("t")
    options = {"unique": True, "unique_for": 60, "concurrency": 2, "concurrency_key": "x"}
    task = app.task(rate_limit_scope="cluster", rate_limit="10/m", **options)(module_task)
    assert {name: getattr(task, name) for name in options} == options
    assert (task.rate_limit, task.rate_limit_scope) == ("10/m", "cluster")


CALLS: list[tuple[tuple[Any, ...], dict[str, Any], bool]] = [
    ((1,), {}, True),
    ((1, 2), {}, True),
    ((), {"a": 1}, True),
    ((1,), {"b": 2}, True),
    ((), {}, False),
    ((1, 2, 3), {}, False),
    ((1,), {"a": 2}, False),
    ((1,), {"c": 2}, False),
]


@pytest.mark.parametrize("bind", [False, True])
@pytest.mark.parametrize(("args", "kwargs", "fits"), CALLS)
def test_a_call_that_does_not_fit_is_refused_at_the_caller(
    args: tuple[Any, ...], kwargs: dict[str, Any], fits: bool, bind: bool
) -> None:
    app = App("t", task_always_eager=True)

    def plain(a: Any, b: int = 0) -> None: ...

    def method(self: Any, a: Any, b: int = 0) -> None: ...

    task = app.task(bind=True)(method) if bind else app.task(plain)
    if fits:
        assert task.apply_async(args, kwargs).successful()
    else:
        with pytest.raises(TypeError, match=r"^(plain|method)\(\) "):
            task.apply_async(args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "fits"), [((), {"k": 1}, True), ((1, 2), {"k": 1, "z": 1}, True), ((1,), {}, False)]
)
def test_star_arguments_and_keywords_only_are_understood(args: Any, kwargs: Any, fits: bool) -> None:
    app = App("t", task_always_eager=True)

    @app.task
    def task(*rest: Any, k: int, **more: Any) -> None: ...

    if fits:
        task.apply_async(args, kwargs)
    else:
        with pytest.raises(TypeError, match="'k'"):
            task.apply_async(args, kwargs)


def test_typing_false_leaves_the_check_to_the_worker() -> None:
    app = App("t", task_always_eager=True)
    assert app.task(typing=False)(module_task).delay().failed()


def test_functions_written_in_c_take_what_they_take() -> None:
    app = App("t", task_always_eager=True)
    assert app.task(name="max")(max).delay(1, 2).get() == 2


def test_outside_of_a_run_the_request_is_that_of_a_direct_call() -> None:
    task = App("t").task(module_task)
    assert (task.request.id, task.request.called_directly, task.request.retries) == (None, True, 0)
    assert not current_task
    assert running_context() is None


def test_a_run_knows_its_request_and_a_direct_call_inside_has_its_own() -> None:
    app = App("t")

    @app.task(bind=True)
    def inner(self: Task[..., Any]) -> tuple[Any, bool]:
        return self.request.id, self.request.called_directly

    @app.task(bind=True)
    def outer(self: Task[..., Any]) -> Any:
        assert current_task == outer
        return inner(), self.request.id, running_context() is self.request, task_info()

    with Entered(outer):
        assert outer.body() == ((None, True), "i", True, (outer.name, "i"))
    assert task_info() is None


def test_a_task_that_calls_itself_sees_a_direct_call() -> None:
    app = App("t")

    @app.task(bind=True)
    def again(self: Task[..., Any], n: int) -> list[Any]:
        return [self.request.id, *(again(n - 1) if n else [])]

    with Entered(again):
        assert again.body(1) == ["i", None]


def test_each_thread_has_its_own_request() -> None:
    task = App("t").task(module_task)
    seen = []
    with Entered(task):
        thread = threading.Thread(target=lambda: seen.append(task.request.id))
        thread.start()
        thread.join()
        assert task.request.id == "i"
    assert seen == [None]


def test_the_request_reads_the_message() -> None:
    raw = encode_task(
        "t.task",
        (1,),
        {"a": 2},
        task_id="i",
        queue="named",
        priority=3,
        retries=2,
        eta="2030-01-01T00:00:00+00:00",
        root_id="r",
        parent_id="p",
        group_id="g",
        group_index=4,
        time_limit=9,
        soft_time_limit=8,
        headers={"mine": 1},
        reply_to="oid",
        callbacks=[{"task": "x"}],
    )
    message = decode(raw, accept=accepted_types(["json"]))
    request = Context.for_message(message, hostname="w1@host", queue="hipri", redelivered=True)
    assert (request.id, request.task, request.args, request.kwargs, request.retries) == (
        "i",
        "t.task",
        [1],
        {"a": 2},
        2,
    )
    assert (request.root_id, request.parent_id, request.group, request.group_index) == ("r", "p", "g", 4)
    assert (request.timelimit, request.time_limit, request.soft_time_limit) == ([9, 8], 9, 8)
    assert (request.eta, request.expires, request.headers) == ("2030-01-01T00:00:00+00:00", None, {"mine": 1})
    assert (request.correlation_id, request.reply_to, request.hostname) == ("i", "oid", "w1@host")
    assert request.delivery_info == {"exchange": "", "routing_key": "hipri", "priority": 3, "redelivered": True}
    assert (request.callbacks, request.chain, request.children) == ([{"task": "x"}], None, [])
    assert (request.called_directly, request.is_eager, request.get("nothing", 5)) == (False, False, 5)
    with pytest.raises(AttributeError, match="no field 'nothing'"):
        request.nothing  # noqa: B018 - the look is the test


def test_children_of_two_requests_are_two_lists() -> None:
    first, second = Context(), Context()
    first.children.append(1)
    assert second.children == []


def test_a_subclass_may_wrap_the_call() -> None:
    class Loud(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return "loud", super().__call__(*args, **kwargs)

    app = App("t")

    @app.task(base=Loud, bind=True)
    def task(self: Task[..., Any], x: int) -> Any:
        return x, self.request.id

    with Entered(task):
        assert task.body(1) == ("loud", (1, "i"))
        assert task(1) == ("loud", (1, None))
    assert task(1) == ("loud", (1, None))


def test_only_overridden_handlers_are_named() -> None:
    class Told(Task[..., Any]):
        def on_failure(self, *about: Any) -> None: ...

    app = App("t")
    assert app.task(module_task).handlers == frozenset()
    assert app.task(base=Told, name="told")(module_task).handlers == {"on_failure"}


def test_a_class_with_run_is_a_task() -> None:
    class Adder(Task[..., Any]):
        name = "adder"

        def run(self, x: int) -> int:
            return x + 1

    app = App("t")
    assert app.register_task(Adder())(1) == 2
    assert app.tasks["adder"].body(4) == 5


def test_update_state_goes_where_the_worker_stores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(contexts, "state_sink", lambda *state: sent.append(state))
    task = App("t").task(module_task)
    with Entered(task):
        task.update_state(state="PROGRESS", meta={"done": 1})
    task.update_state(state="PROGRESS")
    ((task_id, state, meta),) = sent
    assert (task_id, state) == ("i", "PROGRESS")
    assert loads(meta)["result"] == {"done": 1}


def test_a_task_travels_in_a_pickle_by_its_name() -> None:
    task = App("t").task(module_task)
    assert pickle.loads(pickle.dumps(task)) is task
