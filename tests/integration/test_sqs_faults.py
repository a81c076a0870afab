"""Everything that SQS and networks do wrong, at random, while a worker works, dies and is replaced: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from typing import Any

from qworker.tasks.publishing import prepare
from qworker.transports import open_transport

from support import Shop
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, throttled
from support.waiting import wait_until

SEED = int(os.environ.get("QWORKER_CHAOS_SEED") or 7)
COUNT = 150
#: Of which a busy machine may stand still for a part.
LEASE = {"TEST_LEASE": "6"}


class Dice:
    """Throws for each request: throttled, refused in part, refused as a whole, or its answer lost."""

    def __init__(self, proxy: SqsProxy) -> None:
        self.rng = random.Random(SEED)
        self.proxy = proxy
        self.is_over = False
        for action in ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch", "SendMessageBatch"):
            proxy.break_(action, lambda asked, action=action: self.throw(action, asked), 1_000_000)  # type: ignore[misc]

    def throw(self, action: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        number = self.rng.random()
        if self.is_over or number > 0.2:
            return None
        if number < 0.05:
            return throttled(asked)
        if number < 0.10:
            return 500, {"__type": "com.amazonaws.sqs#InternalFailure", "message": "We have a problem."}
        if number < 0.14 and action != "SendMessageBatch":  # a lost send may double, and this counts doubles
            self.proxy.drops[action] += 1
            return None
        if "Entries" not in asked:
            return None
        failed = [{"Id": e["Id"], "Code": "InternalError", "SenderFault": False} for e in asked["Entries"]]
        return 200, {"Successful": [], "Failed": failed}


def test_faults_of_every_kind_and_deaths_lose_nothing(sqs_shop: Shop, sqs: MotoServer) -> None:
    producer = open_transport(sqs.url)
    calls = [prepare(sqs_shop.app, "shop.noted", [f"n{n}"], queue="hipri").envelope for n in range(COUNT)]
    producer.publish(calls)
    producer.close()
    with SqsProxy(sqs.port) as proxy:
        dice = Dice(proxy)
        arguments = ("-c", "2", "-Q", "hipri", "-b", proxy.url, "-l", "WARNING")
        for ending in (signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT):
            before = len(sqs_shop.ran())
            worker = sqs_shop.worker(*arguments, env=LEASE)
            wait_until(lambda before=before: len(sqs_shop.ran()) >= before + 20, "it works")  # type: ignore[misc]
            os.kill(worker.pid, ending)
            worker.wait()
        sqs_shop.worker(*arguments, env=LEASE)
        time.sleep(1)
        dice.is_over = True
        wait_until(lambda: sqs.counts("hipri") == (0, 0, 0), "all have run")
    ran = Counter(sqs_shop.ran())
    assert set(ran) == {f"n{n}" for n in range(COUNT)}
    # Only the killed worker's last moments, and claims that faults have let end, may double.
    assert sum(ran.values()) - COUNT <= 60, ran.most_common(5)
