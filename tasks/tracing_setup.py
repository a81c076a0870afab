"""Sets up OpenTelemetry's SDK in a worker's child, and empties it before the child leaves. Called by execute.py.

After the fork, never before: exporters run threads and hold connections, and a fork copies neither. What is exported
where is told by OpenTelemetry's own variables (`OTEL_TRACES_EXPORTER`, `OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, …); an application that has set up a tracer provider itself keeps it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from ..core import log_events, logs

logger = logging.getLogger("qworker.task")

#: A child that leaves waits no longer than this for a collector.
FLUSH_S: Final = 1.0
_GROUP: Final = "opentelemetry_traces_exporter"


def preload() -> None:
    """Import what `set_up` needs: once, before the fork, instead of in every child. Starts nothing; never raises."""
    with suppress(Exception):  # `set_up` meets the same trouble, and tells it
        import opentelemetry.sdk.trace.export  # noqa: F401

        _exporters()


def set_up(service: str, node: str) -> bool:
    """Give this process a tracer provider that exports as the environment says, unless it has one.

    `service` is the name when the environment gives none. False, and a warning that says what to install, without the
    SDK, an exporter or a propagator: tasks run without spans then. Never raises.
    """
    try:
        from opentelemetry import propagate, trace  # noqa: F401 — what OTEL_PROPAGATORS names is looked for here

        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(_provider(service, node))
    except Exception as error:  # exporters check their settings in ways of their own
        logs.say(
            logger,
            logging.WARNING,
            log_events.TRACING_OFF,
            "no spans are made: {error}; install qworker[otel], or set OTEL_TRACES_EXPORTER=none",
            error=error,
        )
        return False
    return True


def flush() -> None:
    """Export the spans that wait, for FLUSH_S at most. Never raises."""
    from opentelemetry import trace

    provider: Any = trace.get_tracer_provider()
    if not hasattr(provider, "force_flush"):
        return
    # A thread, because an exporter that cannot reach its collector tries for longer than it is told to.
    thread = threading.Thread(target=provider.force_flush, args=(int(FLUSH_S * 1000),), daemon=True)
    thread.start()
    thread.join(FLUSH_S)


def _provider(service: str, node: str) -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    attributes = {"service.instance.id": f"{node}/{os.getpid()}", "service.name": service}
    told = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if os.environ.get("OTEL_SERVICE_NAME"):
        told += "service.name"
    own = {name: value for name, value in attributes.items() if name not in told}
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    for make in _exporters():
        provider.add_span_processor(BatchSpanProcessor(make()))
    return provider


def _exporter_names() -> Iterator[str]:
    """The exporters that OTEL_TRACES_EXPORTER names, as entry points are called."""
    for name in (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        if name.strip() == "otlp":
            protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            protocol = protocol or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
            yield "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
        elif name.strip() not in ("", "none"):
            yield name.strip()


def _exporters() -> list[Callable[[], Any]]:
    from importlib.metadata import entry_points

    makers = []
    for name in _exporter_names():
        found = list(entry_points(group=_GROUP, name=name))
        if not found:
            raise LookupError(f"there is no exporter {name!r}")
        makers.append(found[0].load())
    return makers
