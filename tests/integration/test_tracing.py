"""Spans of real programs and workers, as a collector hears them over OTLP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from support import Shop, wait_until
from support.otel_collector import Collector, Span
from support.stopwatch import Stopwatch

_TASKS = """
@app.task(queue="hipri")
def outer(n):
    add.apply_async((n, 1), queue="hipri")
    return n

@app.task(queue="hipri")
def breaks():
    raise LookupError("no such thing")

@app.task(bind=True, queue="hipri", max_retries=1, default_retry_delay=0.05)
def tries_again(self):
    if not self.request.retries:
        raise self.retry()

@app.task(queue="hipri")
def loaded():
    import sys
    return [name for name in sys.modules if name.startswith("opentelemetry")]
"""

#: A program that has set up OpenTelemetry by itself, as web applications do.
_PROGRAM = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
import shop
from qworker import chain
with trace.get_tracer("web").start_as_current_span("GET /"):
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def traced(shop: Shop) -> Shop:
    shop.write((shop.folder / "shop.py").read_text() + _TASKS)
    return shop


def run_program(shop: Shop, env: dict[str, str], statement: str) -> None:
    command = [sys.executable, "-c", f"{_PROGRAM}    {statement}\n"]
    subprocess.run(command, cwd=shop.folder, env=os.environ | env, check=True, timeout=50)


def only(spans: list[Span]) -> Span:
    assert len(spans) == 1, spans
    return spans[0]


def test_a_trace_goes_from_the_request_through_the_queue_to_what_a_task_sends(
    traced: Shop, collector: Collector
) -> None:
    run_program(traced, collector.environment, "shop.outer.delay(3)")
    traced.worker("-c", "1", "-Q", "hipri", env=collector.environment | {"OTEL_BSP_SCHEDULE_DELAY": "50"})
    wait_until(lambda: collector.of("process", "shop.add"), "the span of add")
    wait_until(lambda: collector.of("process", "shop.outer"), "the span of outer")

    request = only([span for span in collector.spans if span.name == "GET /"])
    sent, ran = only(collector.of("send", "shop.outer")), only(collector.of("process", "shop.outer"))
    inner_sent, inner_ran = only(collector.of("send", "shop.add")), only(collector.of("process", "shop.add"))
    assert [sent.parent, ran.parent, inner_sent.parent, inner_ran.parent] == [
        request.id, sent.id, ran.id, inner_sent.id,
    ]  # fmt: skip
    assert {span.trace for span in collector.spans} == {request.trace}
    assert (ran.links, inner_ran.links) == ([sent.id], [inner_sent.id])
    assert (sent.kind, ran.kind) == (4, 5)
    assert (sent.name, ran.name) == ("send hipri", "process hipri")
    assert (ran["messaging.system"], ran["messaging.destination.name"]) == ("redis", "hipri")
    assert ran["messaging.message.id"] == sent["messaging.message.id"]
    assert inner_ran["messaging.message.conversation_id"] == sent["messaging.message.id"]
    assert ran["qworker.task.outcome"] == "succeeded"
    assert ran.resource["service.name"] == "shop"


def test_a_chain_is_one_trace(traced: Shop, collector: Collector) -> None:
    run_program(traced, collector.environment, "chain(shop.outer.s(1), shop.add.s(2).set(queue='hipri'))()")
    traced.worker("-c", "1", "-Q", "hipri", env=collector.environment | {"OTEL_BSP_SCHEDULE_DELAY": "50"})
    wait_until(
        lambda: len(collector.of("process", "shop.add")) == 2, "two spans of add"
    )  # the other one is sent by `outer`
    wait_until(lambda: collector.of("process", "shop.outer"), "the span of outer")
    assert len({span.trace for span in collector.spans}) == 1
    outer = only(collector.of("process", "shop.outer"))
    assert {span.parent for span in collector.of("send", "shop.add")} == {outer.id}


def test_failures_and_retries_are_told_apart(traced: Shop, collector: Collector) -> None:
    traced.worker("-c", "1", "-Q", "hipri", env=collector.environment | {"OTEL_BSP_SCHEDULE_DELAY": "50"})
    traced.app.send_task("shop.breaks", queue="hipri")
    traced.app.send_task("shop.tries_again", queue="hipri")
    wait_until(lambda: len(collector.of("process", "shop.tries_again")) == 2, "two spans of tries_again")
    wait_until(lambda: collector.of("process", "shop.breaks"), "the span of breaks")

    broken = only(collector.of("process", "shop.breaks"))
    assert (broken.is_error, broken["error.type"], broken.events) == (True, "LookupError", ["exception"])
    attempts = collector.of("process", "shop.tries_again")
    assert [span["qworker.task.outcome"] for span in attempts] == ["retried", "succeeded"]
    assert [span["qworker.task.retries"] for span in attempts] == [0, 1]
    assert not any(span.is_error for span in attempts)


def test_a_child_that_leaves_tells_the_collector_first(traced: Shop, collector: Collector) -> None:
    worker = traced.worker("-c", "1", "-Q", "hipri", env=collector.environment | {"OTEL_BSP_SCHEDULE_DELAY": "60000"})
    result = traced.app.send_task("shop.outer", (1,), queue="hipri")
    assert result.get(timeout=20) == 1
    assert collector.spans == []
    assert worker.stop() == 0
    assert len(collector.of("process", "shop.outer")) == 1


def test_a_collector_that_does_not_answer_holds_nobody_up(traced: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        worker = traced.worker("-c", "1", "-Q", "hipri", env=env)
        assert traced.app.send_task("shop.outer", (1,), queue="hipri").get(timeout=20) == 1
        watch = Stopwatch()
        assert worker.stop() == 0
        assert watch.s < 10


def test_nothing_of_opentelemetry_is_loaded_unless_it_is_asked_for(traced: Shop) -> None:
    traced.worker("-c", "1", "-Q", "hipri")
    assert traced.app.send_task("shop.loaded", queue="hipri").get(timeout=20) == []


def test_task_tracing_off_wins_over_the_environment(traced: Shop, collector: Collector) -> None:
    traced.write((traced.folder / "shop.py").read_text() + "\napp.conf.task_tracing = False\n")
    traced.worker("-c", "1", "-Q", "hipri", env=collector.environment)
    assert traced.app.send_task("shop.loaded", queue="hipri").get(timeout=20) == []


def test_an_unknown_exporter_is_told_and_tasks_run(traced: Shop) -> None:
    worker = traced.worker("-c", "1", "-Q", "hipri", env={"OTEL_TRACES_EXPORTER": "nosuch"})
    assert traced.app.send_task("shop.outer", (1,), queue="hipri").get(timeout=20) == 1
    worker.wait_log("no spans are made: there is no exporter 'nosuch'")


def test_the_headers_stand_where_celery_s_instrumentation_looks_for_them(
    traced: Shop, collector: Collector, client: redis.Redis
) -> None:
    run_program(traced, collector.environment, "shop.outer.apply_async((3,), headers={'mine': 'kept'})")
    sent = only(collector.of("send", "shop.outer"))
    headers = json.loads(client.lindex("hipri", 0))["headers"]
    assert headers["traceparent"].startswith(f"00-{sent.trace}-{sent.id}-")
    assert headers["mine"] == "kept"


def test_a_propagator_that_is_not_installed_costs_neither_a_message_nor_a_run(
    traced: Shop, collector: Collector
) -> None:
    env = collector.environment | {"OTEL_PROPAGATORS": "tracecontext,nobody"}
    worker = traced.worker("-c", "1", "-Q", "hipri", env=env)
    script = "import shop; print(shop.outer.delay(3).get(timeout=20))"
    sent = subprocess.run(
        [sys.executable, "-c", script],
        cwd=traced.folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert sent.stdout == "3\n", sent.stderr
    assert "a span cannot be made: ValueError: Propagator nobody" in sent.stderr
    assert worker.log.count("no spans are made: Propagator nobody") == 1
    assert "lost:" not in worker.log


_BROKEN = """
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

class Broken(SpanProcessor):
    def on_start(self, span, parent_context=None):
        if WHEN == "start":
            raise RuntimeError("at its start")

    def on_end(self, span):
        raise RuntimeError("at its end")

provider = TracerProvider()
provider.add_span_processor(Broken())
trace.set_tracer_provider(provider)
"""


@pytest.mark.parametrize("when", ["start", "end"])
def test_a_span_processor_that_raises_costs_neither_a_message_nor_a_run(traced: Shop, when: str) -> None:
    source = (traced.folder / "shop.py").read_text()
    traced.write(f"WHEN = {when!r}\n{_BROKEN}\n{source}")
    worker = traced.worker("-c", "1", "-Q", "hipri")
    assert traced.app.send_task("shop.outer", args=[3], queue="hipri").get(timeout=20) == 3
    worker.wait_log("shop.add[")
    assert worker.log.count(f"a span cannot be made: RuntimeError: at its {when}") == 1
    assert "lost:" not in worker.log
