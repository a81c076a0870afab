"""One test's accounting application: its folder, an App for publishing, its book, and the look behind the broker."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qworker import App

from ..waiting import wait_until
from .faults import ACK_WINDOW_S, Fault
from .judge import Verdict, judge
from .runs import Run, Task, read_book, read_pulse
from .whereabouts import Whereabouts

_SOURCES = Path(__file__).parent
QUEUE = "account"


class Office:
    """`setup` are the App's settings (broker and backend among them), for the workers and for publishing alike.

    Workers may reach broker and results in another way: by `worker_broker`.
    """

    def __init__(self, folder: Path, where: Whereabouts, *, worker_broker: str = "", **setup: Any) -> None:
        self.folder = folder
        self.where = where
        for name, source in (("book", "book"), ("account", "account_app"), ("stock", "stock_app")):
            (folder / f"{name}.py").write_text((_SOURCES / f"{source}.py").read_text())
        self._set_up(setup)
        self.app = self._load()
        if worker_broker:
            self._set_up({**setup, "broker": worker_broker, "backend": worker_broker})

    def _set_up(self, setup: dict[str, Any]) -> None:
        (self.folder / "setup.json").write_text(json.dumps({"task_default_queue": QUEUE, **setup}))

    def runs(self) -> list[Run]:
        """What the book holds now."""
        return read_book(self.folder / "book.txt")[0]

    def open_gate(self, name: str) -> None:
        """Let the tasks `gate(name)` end."""
        (self.folder / name).touch()

    def task(self, name: str) -> Any:
        return self.app.tasks[f"account.{name}"]

    def left(self) -> dict[str, str]:
        """Task id → place of what is not settled."""
        return {one: place for one, place in self.where().items() if place != "dead"}

    def wait_settled(self, limit_s: float = 60.0) -> None:
        """Wait until the broker holds nothing but dead letters."""
        wait_until(lambda: not self.left(), "everything is settled", limit_s)

    def judge(
        self,
        tasks: Sequence[Task],
        faults: Sequence[Fault],
        *,
        with_results: bool = True,
        ack_s: float = ACK_WINDOW_S,
    ) -> Verdict:
        """The verdict on everything that has run here."""
        runs, nonsense = read_book(self.folder / "book.txt")
        where = self.where()
        dead = [one for one, place in where.items() if place == "dead"]
        results = self._results(tasks) if with_results else None
        pulse = read_pulse(self.folder / "pulse.bin")
        verdict = judge(tasks, runs, faults, left=self.left(), dead=dead, results=results, pulse=pulse, ack_s=ack_s)
        verdict.complaints[:0] = nonsense
        return verdict

    def _results(self, tasks: Iterable[Task]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for task in tasks:
            result = self.app.AsyncResult(task.id)
            found[task.id] = result.result if result.state == "SUCCESS" else None
        return found

    def _load(self) -> App:
        for name in ("book", "account"):
            spec = importlib.util.spec_from_file_location(name, self.folder / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        app: App = sys.modules["account"].app
        return app

    def close(self) -> None:
        self.app.close()
        for name in ("book", "account"):
            sys.modules.pop(name, None)


@contextmanager
def office_in(folder: Path, where: Whereabouts, **setup: Any) -> Iterator[Office]:
    """An Office that is closed in the end."""
    office = Office(folder, where, **setup)
    try:
        yield office
    finally:
        office.close()
