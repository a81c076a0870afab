"""OpenTelemetry: a span for each message that is sent and for each run of one, joined by `traceparent` headers.

Called by publishing.py and app.py (sending) and run.py (running). Nothing of OpenTelemetry is imported unless it is
wanted; the setting-up in a worker's child is in tracing_setup.py.

Spans and attributes follow the semantic conventions for messaging (operations `send` and `process`); the headers are
those of W3C Trace Context, which Celery's instrumentation reads and writes at the same place.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from ..core import log_events, logs

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from .app import App
    from .message import Message

logger = logging.getLogger("qworker.task")

_API: Final = "opentelemetry.trace"
_SYSTEMS: Final = {"sqs": "aws_sqs", "rediss": "redis", "redis+socket": "redis", "sentinel": "redis"}
_complaints: Final[list[Exception]] = []


def is_wanted(app: App) -> bool:
    """Whether spans are made: `task_tracing`, or when that is None, as the process has been set up.

    That is: the program has imported OpenTelemetry, or its environment names an exporter.
    """
    wanted: bool | None = app.conf.task_tracing
    return (_API in sys.modules or _names_exporter()) if wanted is None else wanted


@cache
def _names_exporter() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER")
    if exporter:
        return exporter.lower() != "none"
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_"))


def preload_tracing(app: App) -> None:
    """Before children are forked: import what each of them needs for spans, if they are wanted. Starts nothing."""
    if is_wanted(app):
        from .tracing_setup import preload

        preload()


# -- sending ---------------------------------------------------------------------------------------------------


def begin_send(
    app: App, task: str, task_id: str, queue: str, root_id: str | None
) -> tuple[Span | None, dict[str, str] | None]:
    """Begin the span of a message that is about to be sent; returns it with the headers that tell the consumer of it.

    (None, None) when no spans are made here, or this one cannot be made: no message stays unsent for that.
    """
    try:
        return _begun_send(app, task, task_id, queue, root_id)
    except Exception as error:  # of a sampler, a propagator, a processor: they may be anybody's
        _complain(error)
        return None, None


def _begun_send(
    app: App, task: str, task_id: str, queue: str, root_id: str | None
) -> tuple[Span | None, dict[str, str] | None]:
    tracer = _tracer(app)
    if tracer is None:
        return None, None
    from opentelemetry import propagate, trace

    attributes = _attributes(app, "send", task, task_id, queue, root_id)
    span = tracer.start_span(f"send {queue}", kind=trace.SpanKind.PRODUCER, attributes=attributes)
    headers: dict[str, str] = {}
    propagate.inject(headers, context=trace.set_span_in_context(span))
    return span, headers


@contextmanager
def sending(span: Span) -> Iterator[None]:
    """End `span` with the block, as failed if the block raises."""
    try:
        yield
    except BaseException as error:
        _fail(span, error)
        raise
    finally:
        _end(span)


# -- running ---------------------------------------------------------------------------------------------------


@contextmanager
def processing(app: App, message: Message, queue: str, node: str) -> Iterator[Span | None]:
    """Make the span of a run the current one for the block; its parent, and its link, is the span of the sending.

    None when no spans are made here, or this one cannot be made: no run may depend on it, and no child die of it.
    """
    try:
        span = _begun_run(app, message, queue, node)
    except Exception as error:  # as above
        _complain(error)
        span = None
    if span is None:
        yield None
        return
    from opentelemetry import trace

    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        finally:
            _end(span)


def _begun_run(app: App, message: Message, queue: str, node: str) -> Span | None:
    tracer = _tracer(app)
    if tracer is None:
        return None
    from opentelemetry import propagate, trace

    sent = propagate.extract(_texts(message.headers))
    origin = trace.get_current_span(sent).get_span_context()
    attributes = _attributes(app, "process", message.task, message.id, queue, message.text("root_id"))
    attributes |= {"messaging.client.id": node, "qworker.task.retries": message.retries}
    return tracer.start_span(
        f"process {queue}",
        context=sent,
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
        links=[trace.Link(origin)] if origin.is_valid else [],
    )


def ended(span: Span | None, outcome: str, error: BaseException | None = None) -> None:
    """Note on the span of a run how it has ended, and by which error."""
    if span is None:
        return
    span.set_attribute("qworker.task.outcome", outcome)
    if error is not None:
        _fail(span, error)


def _fail(span: Span, error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", type(error).__qualname__)
    try:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, str(error)))
    except Exception:  # the user's exception may raise anything when it is asked for its text
        span.set_status(Status(StatusCode.ERROR))


def _end(span: Span) -> None:
    try:
        span.end()
    except Exception as error:  # of a processor
        _complain(error)


def _complain(error: Exception) -> None:
    """Once per process: what is wrong with one span is wrong with all."""
    if _complaints:
        return
    _complaints.append(error)
    logs.say(
        logger,
        logging.WARNING,
        log_events.TRACING_OFF,
        "a span cannot be made: {problem}; tasks go on without",
        problem=f"{type(error).__name__}: {error}",
    )


def _attributes(app: App, operation: str, task: str, task_id: str, queue: str, root_id: str | None) -> dict[str, Any]:
    scheme = str(app.conf.broker_url).partition(":")[0]
    return {
        "messaging.system": _SYSTEMS.get(scheme, scheme),
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "messaging.message.id": task_id,
        "messaging.message.conversation_id": root_id or task_id,
        "qworker.task.name": task,
    }


def _texts(headers: Mapping[str, Any]) -> dict[str, str]:
    """The headers that a propagator can read: a message may hold anything under any name."""
    return {name: value for name, value in headers.items() if isinstance(value, str)}


def _tracer(app: App) -> Tracer | None:
    if not is_wanted(app) or not _can_be_loaded():
        return None
    from opentelemetry import trace

    return trace.get_tracer("qworker")


@cache
def _can_be_loaded() -> bool:
    """Found out once: what the environment names is looked for among all that is installed."""
    try:
        from opentelemetry import propagate, trace  # noqa: F401
    except ImportError:
        return False
    except Exception as error:  # OTEL_PROPAGATORS names one that is not installed
        _complain(error)
        return False
    return True
