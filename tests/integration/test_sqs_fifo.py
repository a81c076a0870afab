"""FIFO queues and failed runs with real workers: the order of each group, crashes in it, and the backoff policy."""

from __future__ import annotations

import json

import pytest

from support import Shop
from support.moto_server import MotoServer
from support.sqs_proxy import SqsProxy, hidden_for
from support.waiting import wait_until

_LEASE_S = 30

_STEPS = """
import json, os, time
from pathlib import Path
from qworker import App
FOLDER = Path(__file__).parent
URLS = json.loads((FOLDER / "urls.json").read_text())
app = App("shop", broker=URLS["broker"], backend=URLS["backend"], task_default_queue="steps.fifo",
          broker_transport_options=json.loads(os.environ.get("TEST_BROKER_OPTIONS", "{}")))

def note(text):
    with open(FOLDER / "ran.txt", "a") as file:
        file.write(f"{text}\\n")

@app.task
def step(group, number, dies=False):
    note(f"{group} {number} begins")
    time.sleep(0.02)
    marker = FOLDER / f"{group}{number}.died"
    if dies and not marker.exists():
        marker.touch()
        os._exit(7)
    note(f"{group} {number} ends")

@app.task(acks_on_failure_or_timeout=False)
def fails(name):
    note(f"{name} {time.time()}")
    raise OSError("no")
"""


@pytest.fixture
def steps(sqs_shop: Shop, sqs: MotoServer) -> Shop:
    sqs.queue("steps.fifo")
    sqs_shop.write(_STEPS)
    sqs_shop.app = sqs_shop._import()
    return sqs_shop


def publish(shop: Shop, groups: str, count: int, **more: object) -> None:
    for number in range(count):
        for group in groups:
            kwargs = more if (group, number) == ("a", 1) else {}
            shop.task("step").apply_async((group, number), kwargs, MessageGroupId=group)


def ended(shop: Shop) -> int:
    return sum(line.endswith("ends") for line in shop.ran())


def test_each_group_runs_in_order_and_groups_run_side_by_side(steps: Shop, sqs: MotoServer) -> None:
    publish(steps, "abc", 6)
    steps.worker("-c", "4", "-Q", "steps.fifo")
    wait_until(lambda: ended(steps) == 18, "all have run", 30.0)
    for group in "abc":
        lines = [line for line in steps.ran() if line.startswith(group)]
        assert lines == [f"{group} {n} {what}" for n in range(6) for what in ("begins", "ends")]
    wait_until(lambda: sqs.counts("steps.fifo") == (0, 0, 0), "everything is deleted")


def test_a_crash_keeps_the_order_of_its_group(steps: Shop) -> None:
    publish(steps, "ab", 5, dies=True)
    steps.worker("-c", "2", "-Q", "steps.fifo")
    wait_until(lambda: ended(steps) == 10, "all have run", 30.0)
    lines = [line for line in steps.ran() if line.startswith("a")]
    assert lines[:5] == ["a 0 begins", "a 0 ends", "a 1 begins", "a 1 begins", "a 1 ends"]
    assert [line for line in lines if line.endswith("ends")] == [f"a {n} ends" for n in range(5)]


def test_a_stop_keeps_the_order_of_each_group(steps: Shop, sqs: MotoServer) -> None:
    publish(steps, "ab", 8)
    for done in (4, 9):
        with SqsProxy(sqs.port) as proxy:
            worker = steps.worker("-c", "2", "-Q", "steps.fifo", "-b", proxy.url)
            wait_until(lambda done=done: ended(steps) >= done, "some have run")  # type: ignore[misc]
            assert worker.stop() == 0
            left = list(proxy.held().values())
        # Two seconds, or more when a busy machine is too slow for such claims.
        assert all(claimed_s < _LEASE_S for claimed_s in left), "only what a long poll caught that had to be abandoned"
        wait_until(lambda: sqs.counts("steps.fifo")[1] == 0, "and that is back after its short claim")
    steps.worker("-c", "2", "-Q", "steps.fifo")
    wait_until(lambda: ended(steps) == 16, "all have run", 30.0)
    for group in "ab":
        ends = [line for line in steps.ran() if line.startswith(group) and line.endswith("ends")]
        assert ends == [f"{group} {n} ends" for n in range(8)]


def test_failed_runs_follow_the_backoff_policy_and_a_stop_does_not_count(
    steps: Shop, sqs: MotoServer, proxy: SqsProxy
) -> None:
    url = f"http://127.0.0.1:{proxy.port}/123456789012/hipri"
    policy = {1: 1, 2: 3, 3: 600}
    queue = {"url": url, "backoff_policy": policy, "backoff_tasks": ["shop.fails"]}
    env = {"TEST_BROKER_OPTIONS": json.dumps({"predefined_queues": {"hipri": queue}})}
    worker = steps.worker("-c", "1", "-Q", "hipri", env=env)
    steps.task("fails").apply_async(("x",), queue="hipri")
    wait_until(lambda: len(steps.ran()) >= 2, "it has failed twice")
    assert worker.stop() == 0
    worker = steps.worker("-c", "1", "-Q", "hipri", env=env)
    wait_until(lambda: len(steps.ran()) == 3, "and a third time")
    first, second, third = (float(line.split()[1]) for line in steps.ran())
    assert second - first >= 1
    assert third - second >= 3
    assert worker.stop() == 0
    assert [hidden_s for hidden_s in hidden_for(proxy) if hidden_s in policy.values()] == [1, 3, 600]
    assert sqs.counts("hipri") == (0, 1, 0), "it waits for ten minutes, and no stop changes that"
