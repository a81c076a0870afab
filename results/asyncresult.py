"""AsyncResult: what a client holds of a task that it has sent. Made by `App.AsyncResult` and `Task.apply_async`.

Names and meanings are Celery's. A final state is remembered; anything else is asked of the store at every look.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Final

from ..core.errors import ResultStoreError, ResultTimeout
from ..tasks import loads, parse_datetime, running_context
from .client import HasSettings, store_of
from .meta import READY_STATES
from .rebuild import rebuild

_EXCEPTION_STATES: Final = frozenset({"FAILURE", "REVOKED", "RETRY"})
_PROPAGATED: Final = frozenset({"FAILURE", "REVOKED"})

# How long a waiting `get` bears with a store that is out of reach: a restart or failover takes seconds.
_PATIENCE_S: Final = 15.0

_WOULD_BLOCK: Final = (
    "get() inside a task waits for another task while it holds a child: with all children waiting nothing moves any "
    "more; chain the tasks instead, or pass disable_sync_subtasks=False if you are sure"
)


class AsyncResult:
    """The result of the task `id`. Any thread; each thread uses a connection of its own."""

    def __init__(self, id: str, app: HasSettings) -> None:
        if not isinstance(id, str) or not id:
            raise ValueError(f"a task id is a string that is not empty, not {id!r}")
        self.id = id
        self.app = app
        self._final: dict[str, Any] | None = None

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        *,
        no_ack: bool = True,
        disable_sync_subtasks: bool = True,
    ) -> Any:
        """Wait until the task is done and return its result, or raise its exception unless `propagate` is false.

        `timeout` in seconds; when it is over, ResultTimeout (a TimeoutError) is raised. `interval` and `no_ack` are
        accepted for Celery's sake: nothing here polls. Inside a task this raises RuntimeError unless
        `disable_sync_subtasks` is false. Raises ResultStoreError when the store stays out of reach.
        """
        if disable_sync_subtasks and _inside_task():
            raise RuntimeError(_WOULD_BLOCK)
        meta = self._final or self._wait(timeout)
        if propagate and meta["status"] in _PROPAGATED:
            raise self._value(meta)
        return self._value(meta)

    wait = get

    def ready(self) -> bool:
        """Whether the task is done: succeeded, failed or revoked."""
        return self.status in READY_STATES

    def successful(self) -> bool:
        """Whether the task is done and succeeded."""
        return self.status == "SUCCESS"

    def failed(self) -> bool:
        """Whether the task is done and failed."""
        return self.status == "FAILURE"

    def forget(self) -> None:
        """Delete the stored result; the state is PENDING from then on."""
        self._final = None
        store_of(self.app).forget(self.id)

    def maybe_throw(self, propagate: bool = True) -> Any:
        """Raise the task's exception if it is done and failed; otherwise return what `result` returns."""
        meta = self._look()
        if propagate and meta["status"] in _PROPAGATED:
            raise self._value(meta)
        return self._value(meta)

    @property
    def task_id(self) -> str:
        """The same as `id`."""
        return self.id

    @property
    def status(self) -> str:
        """PENDING (nothing is stored), STARTED, RETRY, SUCCESS, FAILURE, REVOKED, or a state of the task's own."""
        return str(self._look()["status"])

    @property
    def state(self) -> str:
        """The same as `status`."""
        return self.status

    @property
    def result(self) -> Any:
        """The value, or the exception; what `update_state` gave for a state of the task's own; None when pending."""
        return self._value(self._look())

    @property
    def info(self) -> Any:
        """The same as `result`."""
        return self.result

    @property
    def traceback(self) -> str | None:
        """The text of the traceback in the worker, for FAILURE and RETRY."""
        return self._look().get("traceback")

    @property
    def date_done(self) -> datetime | None:
        """When the task was done, as a time with zone."""
        text = self._look().get("date_done")
        return parse_datetime(text) if isinstance(text, str) else None

    @property
    def children(self) -> list[AsyncResult]:
        """The tasks that the task has sent; the members of a group stand for the group."""
        found: list[AsyncResult] = []
        for child in self._look().get("children") or ():
            self._add_children(child, found)
        return found

    def as_tuple(self) -> tuple[tuple[str, None], None]:
        """The form in which a result travels inside other results."""
        return (self.id, None), None

    def __json__(self) -> tuple[tuple[str, None], None]:
        return self.as_tuple()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return self.id == other.id
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<AsyncResult: {self.id}>"

    def _look(self) -> dict[str, Any]:
        if self._final is None:
            stored = store_of(self.app).fetch(self.id)
            return {"status": "PENDING", "result": None} if stored is None else self._read(stored)
        return self._final

    def _wait(self, timeout: float | None) -> dict[str, Any]:
        deadline = None if timeout is None else time.monotonic() + timeout
        stored = self._wait_patiently(deadline)
        if stored is None:
            raise ResultTimeout(f"task {self.id} had no result after {timeout:g} s; it is {self.status}")
        return self._read(stored)

    def _wait_patiently(self, deadline: float | None) -> bytes | None:
        """Wait in the store; when it goes out of reach, try again for a while."""
        store = store_of(self.app)
        give_up, pause_s = None, 0.05
        while True:
            began = time.monotonic()
            left_s = None if deadline is None else max(0.0, deadline - began)
            try:
                return store.wait(self.id, left_s)
            except ResultStoreError:
                now = time.monotonic()
                if give_up is None or now - began > _PATIENCE_S:
                    give_up, pause_s = now + _PATIENCE_S, 0.05
                if now + pause_s > min(give_up, deadline or give_up):
                    raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)

    def _read(self, stored: bytes) -> dict[str, Any]:
        try:
            meta = loads(stored)
            status = meta["status"]
        except (ValueError, RecursionError, TypeError, KeyError) as error:
            raise ResultStoreError(f"the stored result of task {self.id} cannot be read: {error}") from error
        if status in READY_STATES:
            self._final = meta
        return dict(meta)

    def _value(self, meta: dict[str, Any]) -> Any:
        if meta["status"] in _EXCEPTION_STATES:
            return rebuild(meta.get("result"), meta.get("traceback"))
        return meta.get("result")

    def _add_children(self, child: Any, found: list[AsyncResult]) -> None:
        """`child` is `[[id, parent], members]`, where members is None for a task."""
        (task_id, _), members = child
        if members is None:
            found.append(AsyncResult(task_id, self.app))
        for member in members or ():
            self._add_children(member, found)


def _inside_task() -> bool:
    """Whether a child is running a task in this thread; a task called directly or eagerly blocks nobody."""
    context = running_context()
    return context is not None and not context.is_eager
