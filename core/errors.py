"""Every exception of qworker, as one tree; branches by what the caller does next.

    QWorkerError
    ├── ConfigError             fix the configuration and start again
    │   └── AppImportError      the application could not be imported
    ├── TransportError          the broker did not answer: back off and try again
    │   └── LeaseLost           the broker says that we no longer own what we hold
    ├── ResultStoreError        the result store did not answer: back off and try again
    ├── PoolError               a child or the spawner failed
    ├── MessageError            a message that can never run: dead-letter it
    └── TaskError               raised in, about or by tasks (names and arguments as Celery's)
        ├── Retry, Ignore, Reject
        ├── MaxRetriesExceededError, NotRegistered, TaskRevokedError
        ├── TimeLimitExceeded, SoftTimeLimitExceeded, WorkerLostError
        └── ResultTimeout       AsyncResult.get(timeout=…) ran out; also a builtin TimeoutError

`WorkerShutdown` stands apart: a BaseException, so that `except Exception` in a task does not swallow a cold stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any


class QWorkerError(Exception):
    """Root of everything that qworker raises on purpose."""


class ConfigError(QWorkerError):
    """The configuration cannot be used. `problems` holds one sentence per mistake, all found at once."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = problems


class AppImportError(ConfigError):
    """The application named by `-A` could not be imported. `details` is the user's own part of the traceback."""

    def __init__(self, problem: str, details: str = "") -> None:
        super().__init__(problem)
        self.details = details


class TransportError(QWorkerError):
    """The broker could not be reached or did not answer in time; nothing is known to have changed there.

    `nothing_sent` says that it certainly has not: what was asked for may be asked for again.
    """

    nothing_sent = False


class LeaseLost(TransportError):
    """Another worker has recovered what this worker held."""


class ResultStoreError(QWorkerError):
    """The result store could not be reached or did not answer in time."""


class PoolError(QWorkerError):
    """A child process or the spawner could not do its part."""


class MessageError(QWorkerError):
    """A message that can never run. `reason` is a short constant for counting, the text is for people.

    `task_id` and `task` are filled in as far as they could be read, so that a FAILURE can be stored.
    """

    def __init__(self, reason: str, text: str, *, task_id: str | None = None, task: str | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.task_id = task_id
        self.task = task


class TaskError(QWorkerError):
    """Root of what is raised in, about or by tasks."""


class Retry(TaskError):
    """Raised by `Task.retry`: this run ends here and the message comes back later. Not a failure."""

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | None = None,
        when: float | datetime | None = None,
    ) -> None:
        super().__init__(message, exc, when)
        self.message = message
        self.exc = exc
        self.when = when

    def __str__(self) -> str:
        if self.message:
            return self.message
        when = f"in {self.when}s" if isinstance(self.when, int | float) else f"at {self.when}"
        return f"Retry {when}: {self.exc!r}" if self.exc is not None else f"Retry {when}"


class Ignore(TaskError):
    """Raised by a task: ack the message and store no result."""


class Reject(TaskError):
    """Raised by a task: dead-letter the message, or with `requeue=True` put it back on its queue."""

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue


class MaxRetriesExceededError(TaskError):
    """The task asked for one retry more than `max_retries` allows."""

    def __init__(self, *args: object, task_args: Sequence[Any] = (), task_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__(*args)
        self.task_args = task_args
        self.task_kwargs = task_kwargs or {}


class NotRegistered(TaskError, KeyError):
    """No task of this name is registered in the application."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class TaskRevokedError(TaskError):
    """The task was revoked or had expired before it could start."""


class TimeLimitExceeded(TaskError):
    """The task ran past its hard time limit and its child was killed."""


class SoftTimeLimitExceeded(TaskError):
    """Raised inside a task that runs past its soft time limit."""


class WorkerLostError(TaskError):
    """The child died before it could report an outcome."""


class ResultTimeout(TaskError, TimeoutError):
    """The result did not arrive in time."""


class WorkerShutdown(BaseException):
    """Raised inside a running task by a cold stop; the message is requeued and not counted as an attempt."""
