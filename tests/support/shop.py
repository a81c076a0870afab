"""The test application on one broker, and workers that run it."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis

from qworker import App
from qworker.transports import DeadLetter, Envelope, Transport, open_transport

from .waiting import wait_until
from .worker import Worker

_FOLDER = Path(__file__).parent
_ENDS = (_FOLDER / "shop_app_ends.py").read_text().partition("# ---- appended from here on ----\n")[2]
_SOURCE = (_FOLDER / "shop_app.py").read_text() + _ENDS


class Shop:
    """The test application on one broker: its folder, its App for publishing, and workers."""

    def __init__(self, folder: Path, broker: str, backend: str, stack: ExitStack) -> None:
        self.folder = folder
        self.broker = broker
        self.backend = backend
        self._stack = stack
        self._transport: Transport | None = None
        self.write(_SOURCE)
        self.app = self._import()

    def write(self, source: str) -> None:
        (self.folder / "shop.py").write_text(source)
        (self.folder / "urls.json").write_text(json.dumps({"broker": self.broker, "backend": self.backend}))

    def _import(self) -> App:
        spec = importlib.util.spec_from_file_location("shop", self.folder / "shop.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["shop"] = module
        spec.loader.exec_module(module)
        app: App = module.app
        return app

    def task(self, name: str) -> Any:
        return self.app.tasks[f"shop.{name}"]

    def worker(
        self, *arguments: str, ready: bool = True, env: dict[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Worker:
        """A worker of this application; `-c 2 -Q hipri` unless told otherwise."""
        wanted = arguments or ("-c", "2", "-Q", "hipri")
        worker = self._stack.enter_context(Worker(self.folder, "-A", "shop", *wanted, env=env, prefix=prefix))
        return worker.wait_ready() if ready else worker

    def ran(self) -> list[str]:
        """What the tasks have noted with `note`, in order of writing."""
        path = self.folder / "ran.txt"
        return path.read_text().splitlines() if path.exists() else []

    def dead(self) -> list[DeadLetter]:
        """What is in the dead-letter store, newest first."""
        return self._broker().dead_letters()

    def publish(self, envelope: Envelope) -> None:
        """Put these very bytes on a queue."""
        self._broker().publish([envelope])

    def depth(self) -> int:
        """How many messages wait on `hipri`."""
        return self._broker().depths(["hipri"])["hipri"]

    def in_flight(self) -> int:
        """How many messages some worker holds."""
        if self.broker.startswith("sqlite"):
            return self._count("state = 'inflight'")
        with closing(redis.Redis.from_url(self.broker)) as client:
            return int(client.hlen("unacked"))

    def marked(self) -> int:
        """How many of them bear a mark of having been started."""
        if self.broker.startswith("sqlite"):
            return self._count("state = 'inflight' AND started = receipt")
        with closing(redis.Redis.from_url(self.broker)) as client:
            return sum(client.scard(key) for key in client.keys("qworker:started:*"))

    def _count(self, which: str) -> int:
        with closing(sqlite3.connect(self.broker.removeprefix("sqlite:///"))) as db:
            return int(db.execute(f"SELECT count(*) FROM qworker_messages WHERE {which}").fetchone()[0])

    def is_settled(self) -> bool:
        """Whether no message waits on `hipri` and no worker holds one.

        These are two looks, and a message may pass from the one place to the other between them: hence the third.
        """
        return not self.depth() and not self.in_flight() and not self.depth()

    def freeze(self, *processes: psutil.Process) -> None:
        """Stop these processes, at a moment at which none of them keeps everybody else from the broker's file."""
        while True:
            for process in processes:
                process.suspend()
            wait_until(lambda: all(p.status() == psutil.STATUS_STOPPED for p in processes), "they stand still")
            if not self._is_locked():
                return
            for process in processes:
                process.resume()

    def _is_locked(self) -> bool:
        if not self.broker.startswith("sqlite"):
            return False
        with closing(sqlite3.connect(self.broker.removeprefix("sqlite:///"), timeout=1)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            db.rollback()
            return False

    def _broker(self) -> Transport:
        if self._transport is None:
            self._transport = open_transport(self.broker)
            self._transport.connect()
            self._stack.callback(self._transport.close)
        return self._transport


@contextmanager
def shops_in(folder: Path) -> Iterator[Callable[[str, str], Shop]]:
    """What makes a shop on (broker, backend) in this folder; the workers of all of them end with the block."""
    with ExitStack() as stack:
        shops: list[Shop] = []

        def make(broker: str, backend: str) -> Shop:
            shops.append(Shop(folder, broker, backend, stack))
            return shops[-1]

        yield make
        for shop in shops:
            shop.app.close()
        sys.modules.pop("shop", None)
