"""The metrics in Prometheus' text format (0.0.4). The names and labels are a contract with dashboards and alerts.

A metric of which nothing is known now (the broker is away, the application is not loaded yet) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from ..core.companion import ChildNow, Watched
from ..core.tally import STEPS, Ending, TaskTally
from .memory import MemoryReader

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: How long an answer about the queues is waited for; then the last known is shown.
LOOK_S: Final = 0.5
SLOT_STATES: Final = ("idle", "busy", "starting", "leaving")

Labels = Mapping[str, str]
_Tasks = Mapping[tuple[str, str], TaskTally]


def exposition(worker: Watched, memory: MemoryReader) -> str:
    """All metrics of this worker now."""
    return "".join(
        f"{line}\n" for part in (_process, _children, _tasks, _events, _queues) for line in part(worker, memory)
    )


def slot_counts(children: Iterable[ChildNow]) -> dict[str, int]:
    """How many children are in which state."""
    counts = dict.fromkeys(SLOT_STATES, 0)
    for child in children:
        counts[child.state] += 1
    return counts


def _process(worker: Watched, memory: MemoryReader) -> Iterator[str]:
    from .. import __version__

    status = worker.status()
    yield from _gauge("qworker_build_info", "The version that runs.", [({"version": __version__}, 1)])
    yield from _gauge("qworker_up", "1 when the worker is ready and runs.", [({}, int(status.phase == "running"))])
    yield from _gauge("qworker_uptime_seconds", "Since the worker was started.", [({}, status.uptime_s)])
    yield from _gauge("qworker_broker_up", "Whether the broker is in reach.", [({}, int(status.is_broker_up))])
    age_s = worker.last_fetch_age_s()
    if age_s is not None:
        text = "Since the broker last answered a fetch; it grows while no room is left for messages."
        yield from _gauge("qworker_last_fetch_age_seconds", text, [({}, age_s)])
    yield from _gauge("qworker_held_messages", "Fetched, and given to no child yet.", [({}, status.held)])


def _children(worker: Watched, memory: MemoryReader) -> Iterator[str]:
    children = worker.children()
    counts = slot_counts(children)
    states = [({"state": state}, count) for state, count in counts.items()]
    yield from _gauge("qworker_slots", "Children by what they do.", states)
    readings = memory.of([child.pid for child in children if child.pid]).values()
    if readings:
        sums = [({"kind": kind}, sum(getattr(one, kind) for one in readings)) for kind in ("rss", "pss", "uss")]
        yield from _gauge("qworker_child_memory_bytes", "Memory of all children together.", sums)


def _tasks(worker: Watched, memory: MemoryReader) -> Iterator[str]:
    tasks = dict(sorted(worker.tally().tasks().items()))
    yield from _counter(
        "qworker_tasks_total",
        "Runs by how they ended.",
        [
            ({**_labels(key), "outcome": ending.name.lower()}, one.endings[ending])
            for key, one in tasks.items()
            for ending in Ending
            if ending and one.endings[ending]
        ],
    )
    text = "From the moment a child has read a message to its outcome."
    yield from _histogram("qworker_task_runtime_seconds", text, tasks, lambda one: (one.runs, one.run_s))
    text = "From the moment a message was published, or due, to the start of its run."
    yield from _histogram("qworker_task_queue_wait_seconds", text, tasks, lambda one: (one.waits, one.wait_s))
    cpu = [(_labels(key), one.cpu_s) for key, one in tasks.items()]
    yield from _counter("qworker_task_cpu_seconds_total", "Processor time of runs and their subprocesses.", cpu)
    peaks = [(_labels(key), one.peak_kib * 1024) for key, one in tasks.items()]
    text = "The most by which one run has raised its child's peak memory."
    yield from _gauge("qworker_task_memory_growth_bytes", text, peaks)


def _events(worker: Watched, memory: MemoryReader) -> Iterator[str]:
    tally = worker.tally()
    restarts = [({"reason": reason}, count) for reason, count in sorted(tally.restarts().items())]
    yield from _counter("qworker_child_restarts_total", "Children that were replaced.", restarts)
    found = [({"cause": cause}, count) for cause, count in sorted(tally.recoveries().items())]
    yield from _counter("qworker_recovered_messages_total", "Messages that came back from whoever was lost.", found)
    dead = [({"queue": queue, "reason": why}, count) for (queue, why), count in sorted(tally.dead().items())]
    yield from _counter("qworker_dead_letters_total", "Messages that this worker has dead-lettered.", dead)


def _queues(worker: Watched, memory: MemoryReader) -> Iterator[str]:
    sight = worker.look_at_queues(LOOK_S)
    if sight is None:
        return
    depths = [({"queue": queue}, depth) for queue, depth in sight.depths.items()]
    yield from _gauge("qworker_queue_depth", "Messages that wait on the broker.", depths)
    # Where nothing waits, nothing is old: an alert must see the number fall, not vanish.
    empty = {queue: 0.0 for queue, depth in sight.depths.items() if not depth}
    ages = [({"queue": queue}, age_s) for queue, age_s in {**empty, **sight.oldest_age_s}.items()]
    text = "How long the next message of a queue has waited, where the broker can tell."
    yield from _gauge("qworker_queue_oldest_age_seconds", text, ages)


def _labels(key: tuple[str, str]) -> dict[str, str]:
    return {"task": key[0], "queue": key[1]}


def _gauge(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    return _metric("gauge", name, text, samples)


def _counter(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    return _metric("counter", name, text, samples)


def _metric(kind: str, name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _histogram(
    name: str, text: str, tasks: _Tasks, read: Callable[[TaskTally], tuple[list[int], float]]
) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} histogram"
    for key, one in tasks.items():
        counts, total_s = read(one)
        labels, count = _labels(key), 0
        for end, step in zip((*(f"{end:g}" for end in STEPS), "+Inf"), list(counts), strict=True):
            count += step
            yield _sample(f"{name}_bucket", {**labels, "le": end}, count)
        yield _sample(f"{name}_sum", labels, total_s)
        yield _sample(f"{name}_count", labels, count)


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
