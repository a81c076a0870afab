"""`qworker doctor`: look at application, broker, queues and result store, and say what will go wrong before it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from ..core.cpus import usable_cpus
from ..core.errors import ConfigError, QWorkerError
from ..core.memory_limit import memory_limit, mib
from ..core.urls import redact
from .common import Target, chosen_queues
from .common import command as make_command
from .options import names

if TYPE_CHECKING:
    from ..tasks import App
    from ..transports import Transport

#: Something was found that a worker would suffer from.
_FOUND: Final = 1


class Finding(NamedTuple):
    """One line. `is_fine` False: somebody should act on it."""

    is_fine: bool
    subject: str
    text: str


def _doctor(target: Target, queues: tuple[str, ...], **limits: int | None) -> int:
    app = target.app()  # without an application there is nothing to look at: its own error says why
    if target.has_app:
        app.load_includes()
    troubles = 0
    for finding in chain(_findings(target, app, queues), _about_memory(app, limits)):
        troubles += not finding.is_fine
        click.echo(f"{'ok' if finding.is_fine else 'CHECK':<6}{finding.subject}: {finding.text}")
    click.echo("nothing to complain of" if not troubles else f"to look after: {troubles}")
    return _FOUND if troubles else 0


def _findings(target: Target, app: App, queues: tuple[str, ...]) -> Iterator[Finding]:
    own = [name for name in app.tasks if not name.startswith("celery.")]
    yield Finding(bool(own) or not target.has_app, "app", f"{app.main}, {len(own)} tasks")
    yield from _about_broker(target, app, queues)
    yield from _about_results(app)


def _about_broker(target: Target, app: App, queues: tuple[str, ...]) -> Iterator[Finding]:
    names = chosen_queues(app, queues)
    try:
        with target.broker(app, names) as broker:
            found = [_look_at(broker, name) for name in names]
            yield Finding(True, "broker", f"{redact(app.conf.broker_url)} answers")
            yield from found
            if not all(one.is_fine for one in found):
                return  # the rest would say the same in other words
            for warning in broker.warnings():
                yield Finding(False, "broker", warning)
            yield from _about_limits(app, broker.capabilities.max_claim_s)
            yield _about_dead_letters(broker)
    except (QWorkerError, NotImplementedError) as error:
        yield Finding(False, "broker", str(error))


def _look_at(broker: Transport, name: str) -> Finding:
    try:
        return Finding(True, "queue", f"{name}, {broker.depths([name])[name]} waiting")
    except ConfigError as error:  # the broker has answered: there is no such queue
        return Finding(False, "queue", str(error))


def _about_limits(app: App, most_s: float | None) -> Iterator[Finding]:
    longest_s = max([app.conf.task_time_limit or 0, *(task.time_limit or 0 for task in app.tasks.values())])
    if most_s is not None and longest_s > most_s:
        yield Finding(False, "time limit", f"{longest_s:g} s is above the {most_s:g} s that this broker can wait for")


def _about_dead_letters(broker: Transport) -> Finding:
    try:
        dead = len(broker.dead_letters(limit=1))
    except ConfigError as error:  # this broker has no store of its own, which its warnings have judged
        return Finding(True, "dead letters", str(error))
    return Finding(not dead, "dead letters", "none" if not dead else "there are some; see qworker dead list")


def _about_results(app: App) -> Iterator[Finding]:
    from ..results import open_result_store

    try:
        store = open_result_store(app.conf.result_backend, settings=app.conf)
        if store is None:
            yield Finding(True, "results", "are not kept")
            return
        try:
            store.connect()
            yield Finding(True, "results", f"{redact(app.conf.result_backend)} answers")
        finally:
            store.close()
    except QWorkerError as error:
        yield Finding(False, "results", str(error))


def _about_memory(app: App, limits: Mapping[str, int | None]) -> Iterator[Finding]:
    from ..worker import overcommitment

    chosen = {name: limits[name] or app.conf[name] for name in limits}
    children = chosen["worker_concurrency"] or usable_cpus()
    allowed = memory_limit()
    trouble = overcommitment(children, chosen, allowed)
    shown = "no limit" if allowed is None else f"{mib(allowed)} (cgroup) for {children} children"
    yield Finding(not trouble, "memory", trouble or shown)


def _limit(flag: str, setting: str) -> click.Option:
    """An option of the worker, which is in its environment where the worker is configured by that."""
    variable = f"QWORKER_{flag.strip('-').upper().replace('-', '_')}"
    return click.Option([flag, setting], envvar=variable, callback=_number, metavar="N", help="As the worker's.")


def _number(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """None for what is not given, or left to the worker (`auto`)."""
    if text is None or text.lower() == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is not a number above 0", ctx, param)
    return int(text)


command = make_command(
    "doctor",
    [
        click.Option(
            ["-Q", "--queues"], metavar="A,B", callback=names, help="These queues. Default: the application's."
        ),
        _limit("--concurrency", "worker_concurrency"),
        _limit("--max-memory-per-child", "worker_max_memory_per_child"),
        _limit("--max-memory-hard", "worker_max_memory_hard"),
    ],
    _doctor,
    help="Look at application, broker, queues and results, and say what will go wrong; exit code 1 if anything will.",
)
