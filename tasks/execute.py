"""One message, from bytes to a run (`tasks/run.py`): decode it, check it, and set aside what cannot or may not run.

Called by a child (`pool/child.py`) for every message: the hot path of the child. Nothing here talks to the broker or
the result store; the outcome says what is to be told to them, and the master tells it in batches.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Final

from ..core import log_events, logs
from ..core.clock import wall_time
from ..core.errors import MessageError, NotRegistered
from ..core.tally import Ending
from . import context as contexts
from . import tracing
from .codec import decode, identify
from .context import Context
from .interrupts import Hooks, interrupts
from .lent import lend_tasks
from .message import Message
from .outcome import Action, Outcome
from .outcome_meta import failure_meta, revoked_meta
from .run import Run
from .run_log import say
from .serializers import accepted_types
from .successors import UNSUPPORTED_CANVAS, resumed, unsupported
from .usage import meter

if TYPE_CHECKING:
    from .app import App

logger = logging.getLogger("qworker.task")

UNKNOWN_TASK: Final = "unknown_task"
INTERNAL_ERROR: Final = "internal_error"


class TaskExecutor:
    """Prepares and runs messages with one application's tasks.

    Built in the spawner, used by every child after the fork.
    """

    def __init__(self, app: App, node: str) -> None:
        conf = app.conf
        self.app = app
        self.node = node
        self.stores_results = bool(conf.result_backend) and not str(conf.result_backend).startswith("disabled")
        self.is_extended: bool = conf.result_extended
        self.pid = 0
        self._tasks = app.tasks
        self._accept = accepted_types(conf.accept_content)
        self._timezone: str = conf.timezone
        self._max_bytes: int = conf.worker_max_message_bytes
        self.traces = False

    def start(self, hooks: Hooks) -> None:
        """Call this first in each child: states of running tasks and orders to them then find their way."""
        self.pid = os.getpid()
        meter.begin()

        def send_state(task_id: str, _state: str, meta: bytes) -> None:
            with interrupts.shield():  # half a record would make the rest of the channel unreadable
                hooks.send_state(task_id, meta)

        def keep_checkpoint(context: Context, state: Any) -> None:
            if context.message is not None:
                envelope = resumed(context.message, state, self.app, context)
                with interrupts.shield():
                    hooks.send_checkpoint(envelope.priority, envelope.raw)

        contexts.state_sink = send_state
        contexts.checkpoint_sink = keep_checkpoint
        interrupts.install(hooks, Run._call.__code__)
        logs.set_task_info(lend_tasks(contexts.task_info))
        if tracing.is_wanted(self.app):
            from .tracing_setup import set_up

            self.traces = set_up(self.app.main or "qworker", self.node)

    def stop(self) -> None:
        """Call this last in a child that leaves in peace."""
        if self.traces:
            from .tracing_setup import flush

            flush()

    def prepare(self, raw: bytes, queue: str, crashes: int) -> Run | Outcome:
        """Decode and check one message; an outcome when it is bad, unknown, expired or not due yet. Never raises."""
        try:
            return self._prepared(raw, queue, crashes)
        except MessageError as error:
            return self._bad(error)
        # No message is known that comes here. It would end a child with each try; so it is set aside, and told.
        except Exception as error:
            logs.say(
                logger, logging.ERROR, log_events.MESSAGE_UNPREPARED, "a message cannot be prepared", exc_info=True
            )
            return self._bad(MessageError(INTERNAL_ERROR, repr(error), **identify(raw)._asdict()))

    def _prepared(self, raw: bytes, queue: str, crashes: int) -> Run | Outcome:
        message = decode(raw, accept=self._accept, timezone=self._timezone, max_bytes=self._max_bytes)
        task = self._tasks.get(message.task)
        if task is None:
            return self._refused(message, UNKNOWN_TASK, f"no task of this name: {message.task!r}")
        if message.embed and (why := unsupported(message)):
            return self._refused(message, UNSUPPORTED_CANVAS, why)
        run = Run(self, task, message, queue, crashes)
        if message.eta is not None or message.expires is not None:
            return self._untimely(run) or run
        return run

    def _untimely(self, run: Run) -> Outcome | None:
        now = wall_time()
        message = run.message
        if message.expires is not None and now > message.expires:
            say(logging.INFO, log_events.TASK_REVOKED, run, "has expired and is not run", expired=True)
            meta = revoked_meta(message.id, "expired", run.fields()) if run.stores else None
            return Outcome(Action.ACK, message.id, meta, ending=Ending.EXPIRED, task=message.task.encode())
        if message.eta is not None and message.eta > now:
            say(logging.DEBUG, log_events.TASK_PARKED, run, f"waits on the broker for {message.eta - now:.1f}s")
            return Outcome(Action.PARK, message.id, due=message.eta)
        return None

    def _refused(self, message: Message, reason: str, text: str) -> Outcome:
        error = MessageError(reason, text, task_id=message.id, task=message.task)
        return self._bad(error, NotRegistered(message.task) if reason == UNKNOWN_TASK else None)

    def _bad(self, error: MessageError, stored: Exception | None = None) -> Outcome:
        """A message that harms nobody (P8): dead-lettered with its reason, FAILURE where there is an id."""
        about = f"{error.task}[{error.task_id}]" if error.task_id else "a message without a usable id"
        logs.event(
            logger,
            logging.ERROR,
            log_events.MESSAGE_REFUSED,
            text=f"{about} is dead-lettered: {error} ({error.reason})",
            reason=error.reason,
            task=error.task,
            id=error.task_id,
        )
        meta = None
        if error.task_id and self.stores_results:
            meta = failure_meta(error.task_id, stored or error)
        details = {"error": str(error), "task": error.task, "id": error.task_id}
        return Outcome(
            Action.REJECT, error.task_id or "", meta, reason=error.reason, details=details, ending=Ending.REFUSED
        )
