"""What follows a run: the next attempt, callbacks, the next link of a chain, and what a failure leaves behind.

Called by a run (run.py) before it reports its outcome; nothing is sent from here. The envelopes are
published in the same step that settles the message, so a crash neither loses nor doubles them. `group` as a link or
callback is carried out; a chord needs counting in the result store, which this version does not have: `unsupported`
finds such messages before they run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..core import log_events, logs
from ..core.clock import wall_time
from ..transports import Envelope
from .canvas import Signature
from .context import CHECKPOINT_HEADER, Context
from .encoding import encode_retry
from .ids import new_id
from .message import Message
from .moments import from_now
from .outcome_meta import MetaFields, failure_meta, group_child, task_child
from .publishing import Lineage, Prepared, prepare
from .retrying import RetryPlan

if TYPE_CHECKING:
    from .app import App
    from .task import Task

logger = logging.getLogger("qworker.task")

#: A reason for `MessageError`: running the message would silently lose what follows it.
UNSUPPORTED_CANVAS: Final = "unsupported_canvas"

# Options that a signature may carry for the client's own use.
_NOT_FOR_PUBLISHING: Final = frozenset({"add_to_parent", "parent", "producer", "connection", "throw"})


def unsupported(message: Message) -> str | None:
    """Return why what follows `message` cannot be carried out, or None."""
    if message.embed.get("chord") is not None:
        return "it belongs to a chord, and chords are not supported yet"
    chain = list(message.embed.get("chain") or ())
    links = [*chain, *(message.embed.get("callbacks") or ())]
    names = {_kind(link) for link in links} - {None, "chain", "group"}
    # The chain is reversed: whatever stands before a group waits for all of its members, which makes it a chord.
    if any(_kind(link) == "group" for link in chain[1:]) or any(
        (link.get("options") or {}).get("chord") for link in links
    ):
        names.add("chord")
    return f"a {names.pop()} follows it, which is not supported yet" if names else None


def next_attempt(message: Message, plan: RetryPlan, app: App, context: Context) -> Envelope:
    """Return the envelope of the attempt that `plan` describes, on the queue that `message` came from."""
    now = wall_time()
    options = dict(plan.options)
    queue = options.pop("queue", None) or context.queue or message.queue or app.conf.task_default_queue
    priority = options.pop("priority", None)
    priority = message.priority if priority is None else priority
    expires = options.pop("expires", None)
    zone = app.conf.timezone
    raw = encode_retry(
        message,
        retries=plan.retries,
        eta=plan.due,
        now=now,
        queue=queue,
        priority=priority,
        args=plan.args,
        kwargs=plan.kwargs,
        changes=_changed_headers(message, options),
        expires=None if expires is None else from_now(expires, now, zone),
    )
    return Envelope(queue, raw, priority, plan.due, task_id=message.id)


def resumed(message: Message, state: Any, app: App, context: Context) -> Envelope:
    """Return the envelope of the same attempt, next in its queue, that finds `state` in `self.request.checkpoint`."""
    queue = context.queue or message.queue or app.conf.task_default_queue
    raw = encode_retry(
        message,
        retries=message.retries,
        eta=None,
        now=wall_time(),
        queue=queue,
        priority=message.priority,
        changes={CHECKPOINT_HEADER: state},
    )
    return Envelope(queue, raw, message.priority, front=True)


def after_success(message: Message, result: Any, app: App, context: Context) -> list[Envelope]:
    """Return the envelopes of what `message` asks for when it returned `result`: callbacks, then the chain's next link.

    Their results become `context.children`. Raises EncodeError if `result` cannot be sent on.
    """
    follower = _Follower(message, app, context)
    callbacks = list(message.embed.get("callbacks") or ())
    if len(callbacks) == 1:
        follower.add(callbacks[0], [result])
    elif callbacks:
        follower.add_group(callbacks, [result], new_id())
    chain = message.embed.get("chain")
    if chain:
        follower.add(chain[-1], [result], rest=list(chain[:-1]))
    return follower.envelopes


def after_failure(
    message: Message, error: BaseException, app: App, context: Context, traceback: str | None = None
) -> tuple[list[Envelope], list[tuple[str, bytes]]]:
    """Return what follows the failure of `message`: the envelopes of errbacks, and (task id, meta) of the chain's rest.

    The rest of the chain will never run: without a stored failure a client that waits for the last link would wait for
    ever. Errbacks of this application that take more than one argument are called here, with request, exception and
    traceback; the others are sent the id of the failed task. An errback's own mistakes are logged.
    """
    publish = [
        errback
        for errback in message.embed.get("errbacks") or ()
        if not _called(errback, error, app, context, traceback)
    ]
    follower = _Follower(message, app, context)
    if publish:
        try:
            follower.add_group(publish, [message.id], new_id())
        # Whatever is wrong with the options of one: those before it are sent, and the failure of the task counts.
        except Exception:
            logs.say(
                logger,
                logging.ERROR,
                log_events.ERRBACK_FAILED,
                "an errback of {task}[{id}] cannot be sent",
                task=message.task,
                id=message.id,
                exc_info=True,
            )
    failed = [
        (task_id, failure_meta(task_id, error, traceback, MetaFields(children=[]))) for task_id in chain_ids(message)
    ]
    return follower.envelopes, failed


def chain_ids(message: Message) -> list[str]:
    """Return the ids of what was still to come in the chain of `message`, in order."""
    return [task_id for link in reversed(message.embed.get("chain") or ()) for task_id in _ids_in(link)]


class _Follower:
    """Collects the envelopes that follow one message."""

    def __init__(self, message: Message, app: App, context: Context) -> None:
        self._app = app
        self._context = context
        priority = message.priority if app.conf.task_inherit_parent_priority else None
        self._lineage = Lineage(message.text("root_id") or message.id, message.id, priority)
        self.envelopes: list[Envelope] = []

    def add(self, link: Mapping[str, Any], prefix: Sequence[Any], rest: list[Any] | None = None) -> None:
        """Publish one signature, or the members of a chain or group. `rest` is the chain that goes on behind it."""
        kind = _kind(link)
        if kind == "group":
            self.add_group(_members(link), prefix, (link.get("options") or {}).get("task_id") or new_id())
        elif kind == "chain":
            first, *others = _members(link)
            self.add(_with_options(first, link), prefix, [*(rest or ()), *reversed(others)])
        else:
            prepared = self._prepare(link, prefix, rest)
            self._context.children.append(task_child(prepared.task_id))

    def add_group(self, links: Sequence[Mapping[str, Any]], prefix: Sequence[Any], group_id: str) -> None:
        """Publish several signatures under one group id."""
        ids = [
            self._prepare(link, prefix, None, group_id=group_id, group_index=index).task_id
            for index, link in enumerate(links)
        ]
        self._context.children.append(group_child(group_id, ids))

    def _prepare(
        self, link: Mapping[str, Any], prefix: Sequence[Any], rest: list[Any] | None, **options: Any
    ) -> Prepared:
        own = [] if link.get("immutable") else prefix
        task: Task[..., Any] | None = self._app.tasks.get(link["task"])
        given = {name: v for name, v in (link.get("options") or {}).items() if name not in _NOT_FOR_PUBLISHING}
        defaults = {} if task is None else {"ignore_result": task.ignore_result}
        prepared = prepare(
            self._app,
            link["task"],
            (*own, *(link.get("args") or ())),
            link.get("kwargs") or {},
            task=task,
            **{"lineage": self._lineage, "chain": rest, **defaults, **_without_nulls(given), **options},
        )
        self.envelopes.append(prepared.envelope)
        if prepared.span is not None:
            prepared.span.end()  # the master sends it, with the ack
        return prepared


def _called(
    errback: Mapping[str, Any], error: BaseException, app: App, context: Context, traceback: str | None
) -> bool:
    """Call `errback` here if it is ours and takes request, exception and traceback; False if it is to be sent."""
    task = app.tasks.get(errback["task"])
    if task is None or task.is_method or not _takes_the_error(getattr(task, "__wrapped__", task.run)):
        return False
    try:
        signature = Signature.from_dict(errback, app)
        task.run(context, error, traceback, *signature.args, **signature.kwargs)
    # The failure of the task is what counts; that of its errback is only told.
    except Exception:
        logs.say(
            logger,
            logging.ERROR,
            log_events.ERRBACK_FAILED,
            "errback {errback} of {task}[{id}] has failed",
            errback=task.name,
            task=context.task,
            id=context.id,
            exc_info=True,
        )
    return True


def _takes_the_error(function: Callable[..., Any]) -> bool:
    """Whether `function` takes more than one positional argument."""
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_argcount > 1 or code.co_flags & 0x04)  # CO_VARARGS


def _changed_headers(message: Message, options: Mapping[str, Any]) -> dict[str, Any]:
    changes = {name: options[name] for name in ("shadow", "ignore_result") if name in options}
    changes.update(options.get("headers") or {})
    if "time_limit" in options or "soft_time_limit" in options:
        hard, soft = message.time_limits
        changes["timelimit"] = [options.get("time_limit", hard), options.get("soft_time_limit", soft)]
    return changes


def _kind(link: Mapping[str, Any]) -> Any:
    return link.get("subtask_type") if link["task"].startswith("celery.") else None


def _members(link: Mapping[str, Any]) -> list[Any]:
    return list((link.get("kwargs") or {}).get("tasks") or ())


def _with_options(first: Mapping[str, Any], chain: Mapping[str, Any]) -> dict[str, Any]:
    """The first call of a nested chain, sent with the options of the chain that are not about its last call."""
    options = {
        n: v for n, v in (chain.get("options") or {}).items() if n not in ("task_id", "link", "group_id", "chord")
    }
    return {**first, "options": {**(first.get("options") or {}), **options}}


def _ids_in(link: Mapping[str, Any]) -> list[str]:
    task_id = (link.get("options") or {}).get("task_id")
    own = [task_id] if isinstance(task_id, str) and task_id else []
    return [found for member in _members(link) for found in _ids_in(member)] if _kind(link) else own


def _without_nulls(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
