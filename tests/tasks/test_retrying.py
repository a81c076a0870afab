from __future__ import annotations

import random
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker import App, Ignore, MaxRetriesExceededError, Reject, Retry, Task, WorkerShutdown
from qworker.tasks import context as contexts
from qworker.tasks.context import Context
from qworker.tasks.retrying import backoff_s, due_at, may_retry, plan_of


def run(task: Task[..., Any], *args: Any, retries: int = 0, **kwargs: Any) -> BaseException:
    """What `task` raises in a worker's run that was retried `retries` times before."""
    context = Context(id="i", task=task.name, args=args, kwargs=kwargs, retries=retries, called_directly=False)
    entered = contexts.enter(task, context)
    try:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - what it is, is looked at by the tests
            task.body(*args, **kwargs)
        return caught.value
    finally:
        contexts.leave(entered)


@pytest.mark.parametrize(
    ("retries", "factor", "maximum", "expected"),
    [
        (0, 1, 600, 1),
        (1, 1, 600, 2),
        (5, 1, 600, 32),
        (10, 1, 600, 600),
        (3, 5, 600, 40),
        (0, 0.5, 600, 1),
        (9999, 1, 60, 60),
    ],
)
def test_the_backoff_doubles_up_to_its_maximum(retries: int, factor: float, maximum: float, expected: int) -> None:
    assert backoff_s(retries, factor=factor, maximum=maximum, jitter=False) == expected


@given(st.integers(0, 100), st.integers(1, 100), st.integers(0, 1000), st.integers())
def test_jitter_stays_between_zero_and_the_backoff(retries: int, factor: int, maximum: int, seed: int) -> None:
    whole = backoff_s(retries, factor=factor, maximum=maximum, jitter=False)
    assert 0 <= backoff_s(retries, factor=factor, maximum=maximum, jitter=True, rng=random.Random(seed)) <= whole


def test_jitter_reaches_both_ends() -> None:
    rng = random.Random(1)
    assert {backoff_s(2, factor=1, maximum=9, jitter=True, rng=rng) for _ in range(200)} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("retries", "most", "expected"), [(0, 3, True), (2, 3, True), (3, 3, False), (0, 0, False), (99, None, True)]
)
def test_a_run_may_be_retried_max_retries_times(retries: int, most: int | None, expected: bool) -> None:
    assert may_retry(retries, most) is expected


def test_when_is_seconds_or_a_time_or_the_default() -> None:
    moment = datetime(2030, 1, 1, tzinfo=timezone.utc)
    assert due_at(5, 180, 100.0, "UTC") == 105.0
    assert due_at(None, 180, 100.0, "UTC") == 280.0
    assert due_at(moment, 180, 100.0, "UTC") == moment.timestamp()
    assert due_at(moment.replace(tzinfo=None), 180, 100.0, "Europe/Berlin") == moment.timestamp() - 3600


def test_retry_raises_a_plan_for_the_next_attempt() -> None:
    app = App("t")

    @app.task(bind=True)
    def flaky(self: Task[..., Any], n: int) -> None:
        raise self.retry(exc=KeyError("not yet"), countdown=7, queue="slow", priority=4)

    before = time.time()
    retry = run(flaky, 1, retries=2)
    assert isinstance(retry, Retry)
    assert str(retry) == "Retry in 7s: KeyError('not yet')"
    plan = plan_of(retry, flaky, Context(), now=0.0)
    assert (plan.retries, plan.args, plan.kwargs, plan.options) == (3, None, None, {"queue": "slow", "priority": 4})
    assert before + 7 <= plan.due <= time.time() + 7


def test_retry_without_a_time_waits_for_the_default_delay() -> None:
    app = App("t")

    @app.task(bind=True, default_retry_delay=60)
    def flaky(self: Task[..., Any]) -> None:
        self.retry()

    before = time.time()
    retry = run(flaky)
    assert isinstance(retry, Retry)
    assert retry.when == 60
    assert before + 60 <= plan_of(retry, flaky, Context(), now=0.0).due <= time.time() + 60


def test_retry_with_other_arguments_plans_them() -> None:
    app = App("t")

    @app.task(bind=True)
    def flaky(self: Task[..., Any], n: int, m: int = 0) -> None:
        self.retry(args=[n + 1], kwargs={"m": 5})

    retry = run(flaky, 1)
    assert isinstance(retry, Retry)
    plan = plan_of(retry, flaky, Context(), now=0.0)
    assert (plan.args, plan.kwargs) == ((2,), {"m": 5})


def test_out_of_retries_the_given_exception_is_raised() -> None:
    app = App("t")

    @app.task(bind=True, max_retries=2)
    def flaky(self: Task[..., Any]) -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            self.retry(exc=error)

    assert isinstance(run(flaky, retries=1), Retry)
    assert isinstance(run(flaky, retries=2), KeyError)


def test_out_of_retries_without_an_exception_it_says_so() -> None:
    app = App("t")

    @app.task(bind=True, max_retries=5)
    def flaky(self: Task[..., Any], n: int) -> None:
        self.retry(max_retries=1)

    error = run(flaky, 8, retries=1)
    assert isinstance(error, MaxRetriesExceededError)
    assert (str(error), error.task_args) == (f"Can't retry {flaky.name}[i] args:(8,) kwargs:{{}}", (8,))


def test_another_exception_than_the_caught_one_keeps_it_as_its_cause() -> None:
    app = App("t")

    @app.task(bind=True, max_retries=0)
    def flaky(self: Task[..., Any]) -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            self.retry(exc=ValueError("outer"))

    error = run(flaky)
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, KeyError)


def test_called_directly_retry_raises_the_exception_at_once() -> None:
    app = App("t")

    @app.task(bind=True)
    def flaky(self: Task[..., Any]) -> None:
        self.retry(exc=ValueError("x"))

    with pytest.raises(ValueError, match="x"):
        flaky()


def test_retry_without_throw_is_found_on_the_request() -> None:
    app = App("t")
    seen = []

    @app.task(bind=True)
    def flaky(self: Task[..., Any]) -> str:
        seen.append((self.retry(throw=False, countdown=1), self.request.pending_retry))
        raise ValueError

    run(flaky)
    ((returned, pending),) = seen
    assert returned is pending
    assert isinstance(pending, Retry)


def test_retry_refuses_what_it_cannot_change() -> None:
    app = App("t")

    @app.task(bind=True)
    def flaky(self: Task[..., Any]) -> None:
        self.retry(serializer="yaml")

    assert isinstance(run(flaky), TypeError)


def test_a_retry_raised_by_hand_gets_a_plan_as_long_as_retries_are_left() -> None:
    app = App("t")

    @app.task(max_retries=2)
    def task() -> None: ...

    context = Context(id="i", retries=1, args=(), kwargs={})
    plan = plan_of(Retry(when=5), task, context, now=100.0)
    assert (plan.retries, plan.due) == (2, 105.0)
    with pytest.raises(MaxRetriesExceededError):
        plan_of(Retry(when=5), task, Context(id="i", retries=2), now=100.0)


def test_autoretry_retries_what_it_names_with_backoff() -> None:
    app = App("t")

    @app.task(autoretry_for=(OSError,), retry_backoff=3, retry_jitter=False, retry_backoff_max=10, max_retries=9)
    def flaky(kind: type[BaseException]) -> None:
        raise kind("x")

    delays = []
    for retries in range(4):
        retry = run(flaky, ConnectionError, retries=retries)
        assert isinstance(retry, Retry)
        assert isinstance(retry.exc, ConnectionError)
        delays.append(retry.when)
    assert delays == [3, 6, 10, 10]
    assert isinstance(run(flaky, ValueError), ValueError)
    assert isinstance(run(flaky, ConnectionError, retries=9), ConnectionError)


def test_autoretry_without_backoff_uses_retry_kwargs() -> None:
    app = App("t")

    @app.task(autoretry_for=(OSError,), retry_kwargs={"countdown": 4, "max_retries": 1})
    def flaky() -> None:
        raise OSError

    retry = run(flaky)
    assert isinstance(retry, Retry)
    assert retry.when == 4
    assert isinstance(run(flaky, retries=1), OSError)


@pytest.mark.parametrize("kind", [Ignore, Reject, Retry, WorkerShutdown, PermissionError])
def test_autoretry_leaves_alone_what_is_no_failure_or_is_excepted(kind: type[BaseException]) -> None:
    app = App("t")

    @app.task(autoretry_for=(BaseException,), dont_autoretry_for=(PermissionError,))
    def flaky() -> None:
        raise error

    error = kind("x")
    assert run(flaky) is error


def test_autoretry_works_with_bound_tasks() -> None:
    app = App("t")

    @app.task(bind=True, autoretry_for=(KeyError,), retry_kwargs={"countdown": 1})
    def flaky(self: Task[..., Any], n: int) -> None:
        assert self is flaky
        raise KeyError(n)

    assert isinstance(run(flaky, 1), Retry)


def test_an_expiry_may_be_changed_by_a_timedelta() -> None:
    assert due_at(timedelta(minutes=1), 0, 100.0, "UTC") == 160.0  # type: ignore[arg-type]
