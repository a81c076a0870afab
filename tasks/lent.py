"""A task's name on the log lines of the threads that it has started, and of what it gives to thread pools.

A context variable is empty in a new thread, so a child of a worker adds to two methods of the standard library what
other instrumentation does as well: `Thread.start` and `ThreadPoolExecutor.submit` hand the caller's task on. For the
log only: such a thread runs no task, so `current_task` is empty there, and what it sends has no parent.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Final

#: Who has started this thread, or given it its present work: task name and id.
_lender: Final = threading.local()

TaskInfo = Callable[[], "tuple[str, str] | None"]


def lend_tasks(running: TaskInfo) -> TaskInfo:
    """Hand tasks on from now on. Returns `running` (the task of this thread, or None), widened by what was handed on.

    Called once in each child.
    """

    def found() -> tuple[str, str] | None:
        return running() or getattr(_lender, "task", None)

    _widen_threads(found, _Pools(found))
    return found


def _widen_threads(find: TaskInfo, pools: _Pools) -> None:
    start = threading.Thread.start

    def start_for_task(self: threading.Thread) -> None:
        pools.widen()
        task = find()
        if task is not None:
            self.run = _lent(self.run, task)  # type: ignore[method-assign]
        start(self)

    threading.Thread.start = start_for_task  # type: ignore[method-assign]


class _Pools:
    """Worker threads of a pool outlive the task that was the first to use it: each call has its own task, or none.

    Pools are widened once somebody has imported them; no call is missed, because the first one starts a thread.
    """

    def __init__(self, find: TaskInfo) -> None:
        self._find = find
        self._are_widened = False
        self.widen()

    def widen(self) -> None:
        """If there are pools in this process, and it has not been done."""
        module = sys.modules.get("concurrent.futures.thread")
        if module is None or self._are_widened:
            return
        self._are_widened = True
        submit, find = module.ThreadPoolExecutor.submit, self._find

        def submit_for_task(self: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            return submit(self, _lent(function, find()), *args, **kwargs)

        module.ThreadPoolExecutor.submit = submit_for_task


def _lent(function: Callable[..., Any], task: tuple[str, str] | None) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        before = getattr(_lender, "task", None)
        _lender.task = task
        try:
            return function(*args, **kwargs)
        finally:
            _lender.task = before

    return run
