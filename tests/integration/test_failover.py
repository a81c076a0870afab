"""A whole fleet behind a Sentinel set whose master is killed: everybody goes on by himself, nothing safe is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from qworker import App
from qworker.core.errors import TransportError

from support import Shop
from support.sentinels import SentinelSet
from support.waiting import wait_until

ShopOn = Callable[[str, str], Shop]

TASKS = 300


class Sender(threading.Thread):
    """Sends tasks until told to stop, each until it has got through; remembers what it has sent and what is unsure."""

    def __init__(self, app: App) -> None:
        super().__init__(daemon=True)
        self._app = app
        self._stop_asked = threading.Event()
        self.sent: list[str] = []
        self.unsure: set[str] = set()

    def run(self) -> None:
        number = 0
        while not self._stop_asked.is_set():
            number += 1
            self._send(f"late-{number}")
            self._stop_asked.wait(0.02)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(60)

    def _send(self, text: str) -> None:
        while True:
            try:
                self._app.send_task("shop.noted", [text])
            except TransportError as error:
                if not error.nothing_sent:
                    self.unsure.add(text)
                self._stop_asked.wait(0.05)
            else:
                self.sent.append(text)
                return


def confirmed(watched: SentinelSet) -> None:
    """Wait until the replicas have everything that the master has taken before this call."""
    with watched.client(watched.master()) as behind:
        behind.set("confirmed", 1)  # WAIT counts from the last write of its own connection
        assert behind.wait(2, 30_000) == 2


@pytest.mark.timeout(180)
def test_a_worker_and_its_producers_survive_the_death_of_the_master(shop_on: ShopOn) -> None:
    """What replicas had confirmed runs; what the dead master alone knew of may be lost, or run again."""
    with SentinelSet(replicas=2, careful=True) as watched:
        shop = shop_on(f"{watched.url}?master_name=shop", "disabled://")
        for number in range(TASKS):
            shop.task("noted").delay(f"safe-{number}")
        worker = shop.worker("-c", "2", "-Q", "hipri,celery", "--prefetch-multiplier", "2")
        shop.task("gate").delay("done")
        wait_until(lambda: "start done" in shop.ran(), "the long task runs", 30)
        sender = Sender(shop.app)
        sender.start()
        wait_until(lambda: len(sender.sent) > 20, "tasks are being sent")
        safe = {f"safe-{number}" for number in range(TASKS)} | set(sender.sent)
        confirmed(watched)
        promoted = watched.fail_over()
        before = len(sender.sent)  # all that the dead master may have taken, and maybe a few that the new one has
        wait_until(lambda: len(sender.sent) > before + 30, "tasks are being sent to the new master", 60)
        (shop.folder / "done").touch()
        sender.stop()
        wait_until(lambda: sender.sent[-1] in shop.ran(), "the last task has run", 60)
        with watched.client(promoted) as behind:
            wait_until(lambda: not behind.exists("hipri", "unacked"), "everything is settled", 60)
        ran = Counter(shop.ran())
        assert worker.stop() == 0
    safe.update(sender.sent[before:])
    assert safe - set(ran) == set()
    # What was acked at the moment of the kill.
    assert sum(count - 1 for text, count in ran.items() if text not in sender.unsure) <= 10, ran.most_common(12)
    assert ran["end done"] == 1
