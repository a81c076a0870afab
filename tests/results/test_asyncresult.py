"""AsyncResult over both stores: what a client sees of a task."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

import qworker.core.errors as errors
from qworker.core.errors import ConfigError, ResultStoreError, ResultTimeout
from qworker.core.settings import Settings
from qworker.results import ResultStore, StoredResult
from qworker.results.asyncresult import AsyncResult
from qworker.results.rebuild import rebuild

from support import RedisServer
from support.stopwatch import Stopwatch

OpenStore = Callable[..., ResultStore]


class Application:
    def __init__(self, url: str | None, **settings: Any) -> None:
        self.conf = Settings(result_backend=url, **settings)


class PickyError(Exception):
    """An exception whose constructor does not take its own `args` back."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


@pytest.fixture
def result(url: str, store: ResultStore) -> AsyncResult:
    return AsyncResult("t1", Application(url))


def put(store: ResultStore, status: str, result: Any = None, **more: Any) -> None:
    meta = {"status": status, "result": result, "traceback": None, "children": [], "task_id": "t1", **more}
    store.store([StoredResult("t1", json.dumps(meta).encode(), status == "SUCCESS")])


def failure(kind: str, *args: Any, module: str = "builtins") -> dict[str, Any]:
    return {"exc_type": kind, "exc_message": list(args), "exc_module": module}


def test_a_task_that_nothing_is_known_of_is_pending(result: AsyncResult) -> None:
    assert (result.status, result.state, result.result, result.info) == ("PENDING", "PENDING", None, None)
    assert (result.ready(), result.successful(), result.failed()) == (False, False, False)
    assert (result.traceback, result.date_done, result.children) == (None, None, [])


def test_a_success_has_its_value(result: AsyncResult, store: ResultStore) -> None:
    put(store, "SUCCESS", {"total": 4}, date_done="2026-11-21T00:35:23.994605+00:00")

    assert result.get(timeout=5) == result.wait(5) == result.result == {"total": 4}
    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)
    assert result.date_done == datetime(2026, 11, 21, 0, 35, 23, 994605, tzinfo=timezone.utc)


def test_typed_values_come_back_as_what_they_were(result: AsyncResult, store: ResultStore) -> None:
    put(store, "SUCCESS", {"__type__": "datetime", "__value__": "2026-01-02T03:04:05"})

    assert result.get() == datetime(2026, 1, 2, 3, 4, 5)


def test_a_failure_is_raised_with_the_workers_traceback_as_its_cause(result: AsyncResult, store: ResultStore) -> None:
    put(store, "FAILURE", failure("ValueError", "bad thing", 42), traceback="Traceback: in the worker")

    with pytest.raises(ValueError, match="bad thing") as raised:
        result.get(timeout=5)
    assert raised.value.args == ("bad thing", 42)
    assert "in the worker" in str(raised.value.__cause__)
    assert (result.ready(), result.successful(), result.failed()) == (True, False, True)
    assert result.traceback == "Traceback: in the worker"


def test_a_failure_is_returned_when_it_is_not_to_be_raised(result: AsyncResult, store: ResultStore) -> None:
    put(store, "FAILURE", failure("ValueError", "bad"))

    assert isinstance(result.get(timeout=5, propagate=False), ValueError)
    assert isinstance(result.result, ValueError)
    with pytest.raises(ValueError, match="bad"):
        result.maybe_throw()


def test_a_revoked_task_raises(result: AsyncResult, store: ResultStore) -> None:
    put(store, "REVOKED", failure("TaskRevokedError", "expired", module="celery.exceptions"))

    with pytest.raises(errors.TaskRevokedError, match="expired"):
        result.get(timeout=5)
    assert (result.ready(), result.failed()) == (True, False)


def test_a_retry_is_not_the_end(result: AsyncResult, store: ResultStore) -> None:
    put(store, "RETRY", failure("KeyError", "not yet"))

    assert (result.status, result.ready()) == ("RETRY", False)
    assert isinstance(result.info, KeyError)
    with pytest.raises(ResultTimeout, match="it is RETRY"):
        result.get(timeout=0.1)


def test_progress_is_seen_while_the_task_runs(result: AsyncResult, store: ResultStore) -> None:
    put(store, "PROGRESS", {"done": 3, "total": 10})

    assert (result.status, result.info, result.ready()) == ("PROGRESS", {"done": 3, "total": 10}, False)


def test_a_time_out_is_also_the_builtin_one(result: AsyncResult) -> None:
    with pytest.raises(TimeoutError, match=r"t1 had no result after 0\.05 s; it is PENDING"):
        result.get(timeout=0.05)


def test_get_wakes_up_when_the_result_comes(result: AsyncResult, store: ResultStore) -> None:
    timer = threading.Timer(0.1, lambda: put(store, "SUCCESS", 5))
    timer.start()

    assert result.get(timeout=20, interval=0.01) == 5
    timer.join()


def test_a_final_state_is_remembered_and_forget_forgets_it(result: AsyncResult, store: ResultStore) -> None:
    put(store, "SUCCESS", 5)
    assert result.get() == 5
    store.forget("t1")
    assert result.result == 5

    result.forget()

    assert result.status == "PENDING"


def test_forget_deletes_what_is_stored(result: AsyncResult, store: ResultStore) -> None:
    put(store, "SUCCESS", 5)

    result.forget()

    assert store.fetch("t1") is None


def test_children_are_the_tasks_that_the_task_sent_also_those_in_groups(
    result: AsyncResult, store: ResultStore
) -> None:
    group = [["g1", None], [[["c2", None], None], [["c3", None], None]]]
    put(store, "SUCCESS", 1, children=[[["c1", None], None], group])

    assert [child.id for child in result.children] == ["c1", "c2", "c3"]


def test_what_cannot_be_read_is_an_error_and_not_an_endless_wait(result: AsyncResult, store: ResultStore) -> None:
    store.store([StoredResult("t1", b"garbage", False)])

    with pytest.raises(ResultStoreError, match="task t1 cannot be read"):
        result.get(timeout=20)


def test_threads_do_not_share_a_connection(url: str, store: ResultStore) -> None:
    put(store, "SUCCESS", 5)
    app = Application(url)
    found: list[Any] = []

    def look() -> None:
        found.append([AsyncResult("t1", app).get(timeout=40) for _ in range(50)])

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [[5] * 50] * 8


def test_results_are_equal_by_id() -> None:
    app = Application(None)

    assert AsyncResult("a", app) == AsyncResult("a", Application(None)) == "a"
    assert AsyncResult("a", app) != AsyncResult("b", app)
    assert len({AsyncResult("a", app), AsyncResult("a", app)}) == 1
    assert (str(AsyncResult("a", app)), repr(AsyncResult("a", app))) == ("a", "<AsyncResult: a>")


@pytest.mark.parametrize("task_id", ["", None, 7])
def test_an_id_that_is_no_text_is_refused(task_id: Any) -> None:
    with pytest.raises(ValueError, match="a task id is a string"):
        AsyncResult(task_id, Application(None))


@pytest.mark.parametrize("backend", [None, "disabled://"])
def test_without_a_store_get_says_what_to_do(backend: str | None) -> None:
    with pytest.raises(ConfigError, match="keeps no results: set its `backend`"):
        AsyncResult("a", Application(backend)).get(timeout=1)


def test_get_bears_a_restart_of_the_server(own_redis: RedisServer) -> None:
    result = AsyncResult("t1", Application(own_redis.url))
    own_redis.stop()

    def come_back() -> None:
        own_redis.start()
        with own_redis.client() as client:
            meta = json.dumps({"status": "SUCCESS", "result": 5, "task_id": "t1"})
            client.set("celery-task-meta-t1", meta)
            client.publish("celery-task-meta-t1", meta)

    timer = threading.Timer(0.3, come_back)
    timer.start()
    assert result.get(timeout=20) == 5
    timer.join()


def test_get_gives_up_at_its_time_out_while_the_server_is_away(own_redis: RedisServer) -> None:
    result = AsyncResult("t1", Application(own_redis.url))
    own_redis.stop()
    watch = Stopwatch()

    with pytest.raises(ResultStoreError, match="cannot be reached"):
        result.get(timeout=0.5)
    assert watch.s < 3


class TestRebuild:
    def test_a_class_of_an_imported_module_is_itself(self) -> None:
        exception = rebuild(failure("JSONDecodeError", "msg", "doc", 0, module="json"))

        assert isinstance(exception, json.JSONDecodeError)

    def test_a_module_that_is_not_imported_is_not_imported_now(self) -> None:
        exception = rebuild(failure("Error", "x", module="wave"))

        import sys

        assert type(exception).__name__ == "Error"
        assert type(exception).__module__ == "wave"
        assert isinstance(exception, errors.TaskError)
        assert "wave" not in sys.modules

    @pytest.mark.parametrize(
        ("module", "name", "args"),
        [
            ("billiard.exceptions", "TimeLimitExceeded", (1,)),
            ("billiard.exceptions", "SoftTimeLimitExceeded", ()),
            ("billiard.exceptions", "WorkerLostError", ("Worker exited prematurely",)),
            ("celery.exceptions", "TaskRevokedError", ("revoked",)),
            ("celery.exceptions", "NotRegistered", ("no.such.task",)),
            ("celery.exceptions", "Reject", ("x", False)),
            ("celery.exceptions", "MaxRetriesExceededError", ("Can't retry",)),
        ],
    )
    def test_celerys_exceptions_are_ours_of_the_same_name(self, module: str, name: str, args: tuple[Any, ...]) -> None:
        exception = rebuild(failure(name, *args, module=module))

        assert type(exception) is getattr(errors, name)
        assert exception.args == args

    def test_a_constructor_that_refuses_its_own_args_is_passed_over(self) -> None:
        exception = rebuild(failure("PickyError", "code 7", module=__name__))

        assert isinstance(exception, PickyError)
        assert str(exception) == "code 7"

    def test_a_nested_class_is_found_by_its_qualified_name(self) -> None:
        assert type(rebuild(failure("TestRebuild.Inner", 1, module=__name__))) is TestRebuild.Inner

    class Inner(Exception):
        pass

    @pytest.mark.parametrize(
        ("module", "name"), [("os", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("builtins", "object")]
    )
    def test_nothing_but_an_exception_class_is_ever_called(self, module: str, name: str) -> None:
        exception = rebuild(failure(name, "touch /tmp/never", module=module))

        assert type(exception).__name__ == name
        assert isinstance(exception, errors.TaskError)

    @pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
    def test_what_would_end_the_client_becomes_an_ordinary_exception(self, name: str) -> None:
        exception = rebuild(failure(name, 3))

        assert type(exception).__name__ == name
        assert isinstance(exception, Exception)

    def test_an_exception_that_could_not_be_stored_keeps_its_name_and_repr(self) -> None:
        args = ["shop", "OwnError", ["one"], "OwnError('one')"]
        exception = rebuild(failure("UnpickleableExceptionWrapper", *args, module="celery.utils.serialization"))

        assert (type(exception).__name__, str(exception)) == ("OwnError", "OwnError('one')")

    @pytest.mark.parametrize(
        "stored", [None, "text", 5, [], {}, {"exc_type": 7}, {"exc_type": ""}, {"exc_type": "a\0b"}]
    )
    def test_nonsense_becomes_a_task_error(self, stored: Any) -> None:
        assert isinstance(rebuild(stored), errors.TaskError)

    @pytest.mark.parametrize("message", ["text", None, {"a": 1}, [], [[1], {"b": 2}]])
    def test_any_message_will_do(self, message: Any) -> None:
        exception = rebuild({"exc_type": "ValueError", "exc_message": message, "exc_module": "builtins"})

        assert isinstance(exception, ValueError)
