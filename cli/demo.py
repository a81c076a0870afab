"""`qworker demo`: a real worker on an embedded broker, some hundred tasks of all kinds, and what became of them.

Everything happens in a temporary folder that is removed at the end. The demo checks what it shows: it exits with 1 when
a task ended otherwise than its kind says, or when the worker did not stop as it was told.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from .. import App
from ..results import close_store_of
from ..tasks import identify
from ..transports import open_transport
from .demo_plan import End, Kind, arguments_of, kinds_of, mixed, notes_of, unexpected
from .demo_show import Progress, outcome_table

_WAIT_S: Final = 60.0
_STOP_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.05
_MOST_PROBLEMS: Final = 5


def _demo(concurrency: int, tasks: int) -> int:
    began = time.monotonic()
    kinds = kinds_of(tasks)
    with tempfile.TemporaryDirectory(prefix="qworker-demo-") as name:
        folder = Path(name)
        with _application(folder) as app:
            code, ends = _run(app, kinds, folder, concurrency)
        problems = unexpected(kinds, ends)
        if code != 0:
            problems.append(f"the worker ended with exit code {code}")
        click.echo(outcome_table(kinds, ends))
        if problems:
            _complain(problems, folder)
            return 1
    click.echo(
        f"all as expected, nothing lost; worker stopped with exit code 0, {time.monotonic() - began:.1f} s in all"
    )
    return 0


def _run(app: App, kinds: Sequence[Kind], folder: Path, concurrency: int) -> tuple[int, dict[str, End]]:
    with _worker(app, folder, concurrency) as worker:
        click.echo(f"worker ready: {concurrency} children; broker and results: {app.conf.broker_url}")
        for kind, index in mixed(kinds):
            kind.sent[app.send_task(kind.task, arguments_of(kind, index, folder)).id] = time.time()
        ends = _watch(app, kinds, worker, folder)
        code = _stop(worker)
    # A result is stored before its message is settled: a worker that has stopped has told the broker everything.
    return code, _with_the_dead(app, ends)


@contextmanager
def _application(folder: Path) -> Iterator[App]:
    from .demo_app import app

    url = f"sqlite:///{folder / 'demo.db'}"
    app.conf.update(broker_url=url, result_backend=url)
    try:
        yield app
    finally:
        app.close()
        close_store_of(app)


@contextmanager
def _worker(app: App, folder: Path, concurrency: int) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process that has said that it is ready; killed on the way out if it still runs."""
    urls = ("-b", app.conf.broker_url, "--result-backend", app.conf.result_backend)
    command = [sys.executable, "-m", "qworker", "-A", "qworker.cli.demo_app", *urls, "-c", str(concurrency), "-C"]
    # The demo is the same for everybody, whatever the shell has set for its user's own workers.
    env = {name: value for name, value in os.environ.items() if not name.startswith("QWORKER_")}
    with _log_of(folder).open("wb") as log:
        worker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )
    try:
        _await_ready(worker, folder)
        yield worker
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def _await_ready(worker: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _WAIT_S
    while b"ready: " not in _log_of(folder).read_bytes():
        if worker.poll() is not None or time.monotonic() > deadline:
            raise click.ClickException("the worker did not start. Its log: " + _tail(folder))
        time.sleep(0.01)


def _watch(app: App, kinds: Sequence[Kind], worker: subprocess.Popen[bytes], folder: Path) -> dict[str, End]:
    """Wait until every task has ended, the worker has died, or the time is over."""
    waiting = {task_id: (kind, index) for kind in kinds for index, task_id in enumerate(kind.sent)}
    progress = Progress(len(waiting))
    ends: dict[str, End] = {}
    deadline = time.monotonic() + _WAIT_S
    while waiting and time.monotonic() < deadline and worker.poll() is None:
        time.sleep(_LOOK_EVERY_S)
        for task_id, (kind, index) in list(waiting.items()):
            end = _end_of(app, task_id, kind, notes_of(kind, index, folder))
            if end is not None:
                ends[task_id] = end
                del waiting[task_id]
        progress.show(ends.values())
    progress.end()
    return ends


def _end_of(app: App, task_id: str, kind: Kind, notes: Path) -> End | None:
    result: Any = app.AsyncResult(task_id)
    if not result.ready():
        return None
    retries = 0
    if kind.task == "demo.flaky" and result.successful():
        retries = result.result
    elif kind.task == "demo.crashing":
        # Each run but the last of a task that is given up was followed by another.
        retries = notes.stat().st_size - (0 if result.successful() else 1)
    return End(result.status, retries, result.date_done.timestamp() - kind.sent[task_id])


def _with_the_dead(app: App, ends: dict[str, End]) -> dict[str, End]:
    """The same, and which of those that failed are in the dead-letter store."""
    dead = _dead_letters(app)
    return {task_id: End("DEAD", end.retries, end.took_s) if task_id in dead else end for task_id, end in ends.items()}


def _dead_letters(app: App) -> set[str | None]:
    transport = open_transport(app.conf.broker_url)
    try:
        transport.connect()
        return {identify(letter.raw).task_id for letter in transport.dead_letters(limit=10_000)}
    finally:
        transport.close()


def _stop(worker: subprocess.Popen[bytes]) -> int:
    """TERM; returns the exit code."""
    worker.terminate()
    try:
        return worker.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()


def _complain(problems: Sequence[str], folder: Path) -> None:
    for problem in problems[:_MOST_PROBLEMS]:
        click.echo(f"qworker: {problem}", err=True)
    if len(problems) > _MOST_PROBLEMS:
        click.echo(f"qworker: and {len(problems) - _MOST_PROBLEMS} more", err=True)
    click.echo("The end of the worker's log:\n" + _tail(folder), err=True)


def _log_of(folder: Path) -> Path:
    return folder / "worker.log"


def _tail(folder: Path) -> str:
    return "\n".join(_log_of(folder).read_text(errors="replace").splitlines()[-20:])


command = click.Command(
    "demo",
    params=[
        click.Option(["-c", "--concurrency"], type=click.IntRange(1, 64), default=4, metavar="N", help="Children (4)."),
        click.Option(["--tasks"], type=click.IntRange(30, 100_000), default=300, metavar="N", help="How many (300)."),
    ],
    callback=_demo,
    help="Run a worker on an embedded broker, send it tasks that succeed, fail, are retried and kill their process, "
    "and show what became of them. Needs no server and leaves nothing behind.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
