"""The load: tasks of mixed kinds, published piece by piece, each written down as the judge wants it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from qworker import App, chain
from qworker.core.errors import TransportError

from .fleet import boottime
from .judge import Task


class Load:
    """Publishes up to `count` messages through `app`. `tasks` are those that were; `unsure` counts failed publishes."""

    def __init__(self, app: App, count: int, rng: random.Random, *, longest_s: float = 0.3) -> None:
        self._app = app
        self._left = count
        self._rng = rng
        self._longest_s = longest_s
        self._failed: set[str] = set()
        self.tasks: list[Task] = []
        self.unsure = 0

    @property
    def is_out(self) -> bool:
        """Whether all has been published."""
        return self._left <= 0

    def publish(self, about: int, *, beyond: bool = False) -> None:
        """Publish about so many messages more; only with `beyond` more than was planned."""
        wanted = self._left - max(0, about)
        while self._left > (wanted if beyond else max(0, wanted)):
            self._publish_one()

    def _publish_one(self) -> None:
        makers: list[tuple[Callable[[], None], int]] = [
            (self._plain, 60), (self._retried, 10), (self._chained, 10), (self._delayed, 10), (self._once, 10),
        ]  # fmt: skip
        (make,) = self._rng.choices([maker for maker, _ in makers], [weight for _, weight in makers])
        make()

    def _plain(self) -> None:
        self._send("work", (self._seconds(),))

    def _retried(self) -> None:
        retries = self._rng.randint(1, 2)
        self._send("work", (self._seconds(), retries), attempts=retries + 1)

    def _delayed(self) -> None:
        countdown = self._rng.uniform(0.0, 3.0)
        self._send("work", (self._seconds(),), countdown=countdown)

    def _once(self) -> None:
        self._send("once", (self._seconds(),), at_most_once=True)

    def _chained(self) -> None:
        work = self._app.tasks["account.work"]
        ids = [self._new_id() for _ in range(self._rng.randint(2, 4))]
        links = [work.si(self._seconds()).set(task_id=one) for one in ids]
        published = boottime()
        certain = self._try(lambda: chain(*links).apply_async())
        for before, one in zip([None, *ids], ids, strict=False):
            self._note(Task(one, after=before, is_certain=certain, published=published))

    def _send(self, name: str, args: tuple[Any, ...], *, countdown: float | None = None, **rules: Any) -> None:
        one = self._new_id()
        task = self._app.tasks[f"account.{name}"]
        published = boottime()
        not_before = published + countdown if countdown else 0.0
        certain = self._try(lambda: task.apply_async(args, task_id=one, countdown=countdown))
        self._note(Task(one, not_before=not_before, is_certain=certain, published=published, **rules))

    def _try(self, publish: Callable[[], Any]) -> bool:
        """Publish once; False when the producer was told that it failed, so that nobody knows where the message is."""
        try:
            publish()
        except TransportError:
            self.unsure += 1
            return False
        return True

    def _note(self, task: Task) -> None:
        self.tasks.append(task)
        self._left -= 1

    def _new_id(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"

    def _seconds(self) -> float:
        """Half of them very short, the others up to the longest."""
        return self._rng.choice([0.0, self._rng.uniform(0.0, 0.02), *[self._rng.uniform(0.0, self._longest_s)] * 2])
