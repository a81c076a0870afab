"""The load: tasks of mixed kinds, published piece by piece, each written down as the judge wants it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from qworker import App, chain
from qworker.core.errors import TransportError

from .fleet import boottime
from .runs import Task

KINDS: Final = {"plain": 60, "retried": 10, "chained": 10, "delayed": 10, "once": 10}


class Load:
    """Publishes up to `count` messages through `app`. `tasks` are those that were; `unsure` counts failed publishes.

    `kinds` names the kinds of tasks and how many of each there are beside the others.
    """

    def __init__(
        self,
        app: App,
        count: int,
        rng: random.Random,
        *,
        longest_s: float = 0.3,
        kinds: Mapping[str, int] = KINDS,
    ) -> None:
        self._app = app
        self._left = count
        self._rng = rng
        self._longest_s = longest_s
        self._kinds = kinds
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
        (kind,) = self._rng.choices(list(self._kinds), weights=list(self._kinds.values()))
        makers: dict[str, Callable[[], None]] = {
            "plain": self._plain,
            "retried": self._retried,
            "chained": self._chained,
            "delayed": self._delayed,
            "once": self._once,
        }
        makers[kind]()

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
