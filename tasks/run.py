"""One run of a task: call it, and make of how it ended what is stored and what follows.

Made by the executor (`tasks/execute.py`) from a message that is fit to run, run by a child (`pool/child.py`): the hot
path of the child. Whatever a task raises has become part of the outcome in the end. What a retry or a chain asks for
is made by `tasks/retrying.py` and `tasks/successors.py`, what is stored by `tasks/outcome_meta.py`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from ..core import log_events, logs, redirect
from ..core.clock import wall_time
from ..core.errors import Ignore, MaxRetriesExceededError, Reject, Retry, WorkerShutdown
from ..core.tally import Ending
from . import context as contexts
from . import tracing
from .context import NO_CHECKPOINT, Context
from .interrupts import interrupts
from .message import Message
from .outcome import NOTHING, Action, Outcome
from .outcome_meta import failure_meta, fields_of, retry_meta, started_meta, success_meta
from .reprs import short_repr
from .retrying import plan_of
from .run_log import say, say_end, seconds
from .successors import after_failure, after_success, next_attempt, resumed
from .tracebacks import text_of
from .usage import meter

if TYPE_CHECKING:
    from .execute import TaskExecutor
    from .task import Task

logger = logging.getLogger("qworker.task")

REJECTED: Final = "rejected"
FAILED: Final = "failed"  # acks_on_failure_or_timeout=False: the message of a failed run is kept
REQUEUE_PAUSE_S: Final = 0.1
#: As a plain number, which is packed faster.
_SUCCEEDED: Final = int(Ending.SUCCEEDED)
#: Names of registered tasks, as outcomes carry them.
_labels: Final[dict[str, bytes]] = {}


class Run:
    """One message, accepted: runs once."""

    def __init__(
        self, executor: TaskExecutor, task: Task[..., Any], message: Message, queue: str, crashes: int
    ) -> None:
        self.task = task
        self.message = message
        self.ack_first = not task.acks_late
        self.text = f"{message.id} {message.task}"
        hard, soft = message.time_limits
        self.hard_s = task.time_limit if hard is None else hard
        self.soft_s = task.soft_time_limit if soft is None else soft
        self.acks_on_timeout = not task.acks_late or task.acks_on_timeout
        self.started = 0.0  # when `run` began, on the monotonic clock
        self.wait_s = meter.waited(message)
        self._executor = executor
        self._context = Context.for_message(message, hostname=executor.node, queue=queue, redelivered=crashes > 0)
        ignored = message.headers.get("ignore_result")
        self._error: BaseException | None = None  # for its span
        self._is_ignored = task.ignore_result if ignored is None else bool(ignored)
        self.stores = executor.stores_results and not self._is_ignored

    def run(self) -> Outcome:
        """Run the task. Every exception that a task may raise has become part of the outcome."""
        outcome = self._traced() if self._executor.traces else self._run()
        name = self.message.task
        outcome.task = _labels.get(name) or _labels.setdefault(name, name.encode("utf-8", "surrogatepass"))
        outcome.wait_s = self.wait_s
        return outcome

    def _traced(self) -> Outcome:
        executor = self._executor
        with tracing.processing(executor.app, self.message, self._context.queue, executor.node) as span:
            outcome = self._run()
            tracing.ended(span, Ending(outcome.ending).name.lower(), self._error)
        return outcome

    def _run(self) -> Outcome:
        task, context = self.task, self._context
        say(logging.INFO, log_events.TASK_RECEIVED, self, "received")
        self.started = started = time.monotonic()
        entered = contexts.enter(task, context)
        try:
            try:
                value = self._call(task, context)
            except (Ignore, Reject, Retry, WorkerShutdown) as asked:
                return self._asked(asked)
            if context.pending_retry is not None:
                return self._asked(context.pending_retry)
            return self._succeeded(value, time.monotonic() - started)
        # SystemExit and KeyboardInterrupt included: a task that calls sys.exit() has failed, the child has not.
        except BaseException as error:
            if interrupts.has_cut():  # it failed while it was cleaning up, or because it could not finish
                return self._cut(WorkerShutdown(f"cut, and then it raised {short_repr(error)}"))
            return self._reported(error)
        finally:
            contexts.leave(entered)

    def _asked(self, asked: Ignore | Reject | Retry | WorkerShutdown) -> Outcome:
        """The task has ended by saying what is to become of its message.

        After a cut, a retry is no wish of its own: the message runs again anyway, and that costs no attempt. At most
        once is different: such a message runs again only because its task says so.
        """
        if isinstance(asked, Ignore):
            say_end(logging.INFO, log_events.TASK_IGNORED, self, "ignored")
            return Outcome(Action.ACK, self.message.id, ending=Ending.IGNORED)
        if isinstance(asked, Reject):
            return self._rejected(asked)
        if isinstance(asked, Retry):
            if interrupts.has_cut() and not self.ack_first:
                return self._cut(WorkerShutdown("cut, and then it asked for a retry"))
            return self._retry(asked)
        if not interrupts.has_cut() and not interrupts.is_stopping():
            return self._reported(asked)  # nobody has asked it to end
        return self._cut(asked)

    def _reported(self, error: BaseException) -> Outcome:
        """The failure, or, when the user's exception cannot even be described, the failure to describe it."""
        try:
            return self._failed(error)
        except Exception as second:  # its __str__, __repr__, __reduce__ … may do anything
            logs.say(
                logger,
                logging.ERROR,
                log_events.FAILURE_UNDESCRIBED,
                "the failure of {task}[{id}] cannot be described",
                task=self.message.task,
                id=self.message.id,
                exc_info=True,
            )
            stand_in = RuntimeError(f"a {type(error).__name__} that cannot be described: {type(second).__name__}")
            meta = failure_meta(self.message.id, stand_in) if self.stores else None
            return Outcome(Action.ACK, self.message.id, meta, ending=Ending.FAILED)

    def fields(self) -> Any:
        """What the stored meta says besides state and result."""
        return fields_of(self._context, extended=self._executor.is_extended)

    def _call(self, task: Task[..., Any], context: Context) -> Any:
        message = self.message
        if task.track_started and self.stores and contexts.state_sink is not None:
            meta = started_meta(message.id, self._executor.pid, self._executor.node, self.fields())
            contexts.state_sink(message.id, "STARTED", meta)
        if "before_start" in task.handlers:
            task.before_start(message.id, message.args, message.kwargs)
        if task.body is task.run:
            context.is_entering = False
        interrupts.open()
        try:
            return task.body(*message.args, **message.kwargs)
        finally:
            interrupts.close()
            redirect.flush_lines()

    def _cut(self, shutdown: WorkerShutdown) -> Outcome:
        """The worker stops: not a failure.

        The message goes back, with the state of its last checkpoint if it made one.
        """
        message = self.message
        if self.ack_first:
            say(
                logging.WARNING, log_events.TASK_CUT, self, "was cut by the stop and is not run again (acks_late=False)"
            )
            meta = failure_meta(message.id, shutdown, None, self.fields()) if self.stores else None
            return Outcome(Action.ACK, message.id, meta, ending=Ending.CUT)
        state = self._context.saved_checkpoint
        if state is NO_CHECKPOINT:
            return Outcome(Action.REQUEUE, message.id, ending=Ending.CUT)
        say(logging.INFO, log_events.TASK_CHECKPOINTED, self, "goes back to its queue with its checkpoint")
        successors = [resumed(message, state, self._executor.app, self._context)]
        return Outcome(Action.ACK, message.id, successors=successors, ending=Ending.CUT)

    def _succeeded(self, value: Any, runtime_s: float) -> Outcome:
        message = self.message
        outcome = Outcome(Action.ACK, message.id, None, True, 0.0, (), "", NOTHING, None, (), _SUCCEEDED)
        if message.embed:
            outcome.successors = after_success(message, value, self._executor.app, self._context)
        if self.stores:
            outcome.meta = success_meta(message.id, value, self.fields())
        if logger.isEnabledFor(logging.INFO):
            text = f"succeeded in {seconds(runtime_s)}s: {short_repr(value)}"
            say_end(logging.INFO, log_events.TASK_SUCCEEDED, self, text, runtime=runtime_s)
        if self.task.handlers:
            self._tell("on_success", value, message.id, message.args, message.kwargs)
            self._tell("after_return", "SUCCESS", value, message.id, message.args, message.kwargs, None)
        return outcome

    def _retry(self, retry: Retry) -> Outcome:
        message, task = self.message, self.task
        try:
            plan = plan_of(retry, task, self._context, wall_time())
        except MaxRetriesExceededError as error:
            return self._failed(error)
        cause = retry.exc or retry
        traceback = text_of(cause)
        successors = [next_attempt(message, plan, self._executor.app, self._context)]
        outcome = Outcome(Action.ACK, message.id, successors=successors, ending=Ending.RETRIED)
        if self.stores:
            outcome.meta = retry_meta(message.id, cause, traceback, self.fields())
        wait_s = max(0.0, plan.due - wall_time())
        why = f": {short_repr(retry.exc)}" if retry.exc is not None else ""
        say_end(
            logging.INFO, log_events.TASK_RETRIED, self, f"retry: Retry in {wait_s:.1f}s{why}", retries=plan.retries
        )
        if task.handlers:
            self._tell("on_retry", cause, message.id, message.args, message.kwargs, traceback)
            self._tell("after_return", "RETRY", cause, message.id, message.args, message.kwargs, traceback)
        return outcome

    def _rejected(self, reject: Reject) -> Outcome:
        message = self.message
        if reject.requeue:
            say_end(logging.INFO, log_events.TASK_REJECTED, self, "gives its message back", reason=reject.reason)
            # By way of the delayed set to the back of its queue; the pause keeps it from running in circles.
            return Outcome(Action.PARK, message.id, due=wall_time() + REQUEUE_PAUSE_S, ending=Ending.REQUEUED)
        say_end(logging.ERROR, log_events.TASK_REJECTED, self, f"rejected: {short_repr(reject.reason)}")
        meta = failure_meta(message.id, reject, None, self.fields()) if self.stores else None
        details = {"error": short_repr(reject.reason), "task": message.task, "id": message.id}
        return Outcome(Action.REJECT, message.id, meta, reason=REJECTED, details=details, ending=Ending.REJECTED)

    def _failed(self, error: BaseException) -> Outcome:
        message, task = self.message, self.task
        self._error = error
        traceback = text_of(error)
        is_expected = bool(task.throws) and isinstance(error, task.throws)
        verb = "raised expected" if is_expected else "raised unexpected"
        trouble = "" if is_expected else "\n" + traceback.rstrip("\n")
        level = logging.INFO if is_expected else logging.ERROR
        say_end(level, log_events.TASK_FAILED, self, f"{verb}: {short_repr(error)}", trouble)
        outcome = Outcome(Action.ACK, message.id, ending=Ending.FAILED)
        if self.stores or (self._executor.stores_results and task.store_errors_even_if_ignored):
            outcome.meta = failure_meta(message.id, error, traceback, self.fields())
        if message.embed:
            outcome.successors, outcome.others = after_failure(
                message, error, self._executor.app, self._context, traceback
            )
        if task.acks_late and not task.acks_on_failure:
            outcome.action, outcome.reason = Action.REJECT, FAILED
            outcome.details = {
                "error": short_repr(error),
                "task": message.task,
                "id": message.id,
                "traceback": traceback,
            }
        if task.handlers:
            self._tell("on_failure", error, message.id, message.args, message.kwargs, traceback)
            self._tell("after_return", "FAILURE", error, message.id, message.args, message.kwargs, traceback)
        return outcome

    def _tell(self, handler: str, *about: Any) -> None:
        """Call a handler that the task's class overrides; its own mistakes are logged and change nothing."""
        if handler not in self.task.handlers:
            return
        try:
            getattr(self.task, handler)(*about)
        except Exception:  # user code, after the outcome is decided
            logs.say(
                logger,
                logging.ERROR,
                log_events.HANDLER_FAILED,
                "{handler} of {task} has failed",
                handler=handler,
                task=self.message.task,
                exc_info=True,
            )
