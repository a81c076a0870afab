"""The fuzzed application in a folder, on a broker: publishing to it, waiting for it, and looking at what is left."""

from __future__ import annotations

import importlib.util
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from qworker import App
from qworker.core.errors import MessageError
from qworker.tasks import TaskExecutor
from qworker.transports import Envelope, Transport, open_transport

from ..brokers import Broker
from ..waiting import wait_until
from .originals import QUEUE

_SOURCE = Path(__file__).with_name("fuzz_app.py")
_PUBLISH_BATCH = 200
_SOON_S = 2.0


def load_app(folder: Path, **setup: Any) -> App:
    """Put the application into `folder` and import it here as well."""
    (folder / "fuzzed.py").write_text(_SOURCE.read_text())
    (folder / "setup.json").write_text(json.dumps(setup))
    spec = importlib.util.spec_from_file_location("fuzzed", folder / "fuzzed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app: App = module.app
    return app


@contextmanager
def executor_in(folder: Path) -> Iterator[TaskExecutor]:
    """What a child runs messages with, in this process."""
    with closing(load_app(folder, result_extended=True)) as app:
        executor = TaskExecutor(app, "fuzz@here")
        executor.stores_results = True  # outcomes carry what would be stored
        yield executor


class Farm:
    """One application on one broker. `url` is the broker's, `broker` looks behind it."""

    def __init__(self, folder: Path, url: str, backend: str, broker: Broker) -> None:
        self.name = "SQLite" if url.startswith("sqlite") else "Redis"
        self.url = url
        self.app = load_app(folder, broker=url, result_backend=backend)
        self._runs = folder / "runs.txt"
        self._broker = broker
        self._transport: Transport = open_transport(url)
        #: What waited for its time at the last `clear`.
        self.delayed_before: Counter[bytes] = Counter()

    def publish(self, raws: Sequence[bytes]) -> None:
        """Put these bytes on the queue, in this order."""
        for at in range(0, len(raws), _PUBLISH_BATCH):
            self._transport.publish([Envelope(QUEUE, raw) for raw in raws[at : at + _PUBLISH_BATCH]])

    def wait_settled(self, limit_s: float) -> None:
        """Wait until nothing waits on the queue, nothing is in flight, and nothing comes back soon."""
        wait_until(lambda: not self._transport.depths([QUEUE])[QUEUE], "the queue is empty", limit_s)
        wait_until(self._is_settled, "everything is settled", limit_s)

    def places(self) -> dict[str, Counter[bytes]]:
        """The bytes that are ready, delayed, inflight and dead."""
        places: dict[str, Counter[bytes]] = {name: Counter() for name in ("ready", "delayed", "inflight", "dead")}
        for place, raw in self._broker.places():
            places[place][raw] += 1
        return places

    def dead_reasons(self, limit: int) -> dict[bytes, str]:
        """Why each message is in the dead-letter store, after a look at what else stands there."""
        now = time.time()
        letters = self._transport.dead_letters(limit=limit)
        for letter in letters:
            assert letter.queue == QUEUE
            assert letter.crashes == 0
            assert now - 3600 < letter.died_at <= now + 5
            assert letter.details["error"]
        return {letter.raw: letter.reason for letter in letters}

    def runs(self) -> Counter[str]:
        """How often messages with that SHA-1 have run."""
        return Counter(self._runs.read_text().split()) if self._runs.exists() else Counter()

    def requeue_dead(self, limit: int) -> int:
        """Put all dead letters back."""
        return self._transport.requeue_dead([letter.token for letter in self._transport.dead_letters(limit=limit)])

    def clear(self) -> None:
        """Forget what was run, and empty the dead-letter store."""
        self._runs.unlink(missing_ok=True)
        self.delayed_before = self.places()["delayed"]
        while letters := self._transport.dead_letters(limit=1000):
            self._transport.purge_dead([letter.token for letter in letters])

    def close(self) -> None:
        self._transport.close()
        self.app.close()

    def _is_settled(self) -> bool:
        try:
            places = self.places()
        except AssertionError:  # the look is no snapshot: a message that was just being moved stood in one half of it
            return False
        if places["inflight"] or self._transport.depths([QUEUE])[QUEUE]:
            return False
        return all(eta is None or eta > time.time() + _SOON_S for eta in map(_eta_of, places["delayed"]))


def _eta_of(raw: bytes) -> float | None:
    """When a delayed message is due; a retry's `eta` is in its headers, as is every other's."""
    from qworker.tasks.codec import decode
    from qworker.tasks.message import TOO_DEEP
    from qworker.tasks.serializers import accepted_types

    try:
        return decode(raw, accept=accepted_types(["json", "yaml", "msgpack"])).eta
    except MessageError as error:
        if error.reason != TOO_DEEP:
            raise
        return None  # it is for us, who read from deeper down than the worker did; the account takes any end of it
