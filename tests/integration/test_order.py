"""The order between queues as a worker's tasks see it, with the options where users write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support import Shop, Worker, wait_until


def fill(shop: Shop, counts: dict[str, int], mark: str = "", **options: int) -> None:
    """So many tasks for each queue, which note the queue's name and `mark`."""
    for queue, count in counts.items():
        for _ in range(count):
            shop.task("noted").apply_async((queue + mark,), queue=queue, **options)


def test_tasks_run_in_proportion_to_the_weights_of_their_queues(any_shop: Shop) -> None:
    fill(any_shop, {"low": 120, "mid": 120, "hipri": 120})
    options = {"queue_weights": {"hipri": 4, "low": 0.5, "mid": 1.5}}
    # A small window: otherwise one claim may take all there is, and shares say nothing about the order.
    arguments = ("-c", "1", "-Q", "low,mid,hipri", "--prefetch-multiplier", "10")
    any_shop.worker(*arguments, env={"TEST_BROKER_OPTIONS": json.dumps(options)})
    wait_until(lambda: len(any_shop.ran()) == 360, "all have run", 30)
    first = any_shop.ran()[:120]
    assert abs(first.count("hipri") - 80) <= 8
    assert abs(first.count("mid") - 30) <= 6
    assert abs(first.count("low") - 10) <= 4


def test_a_strict_order_starves_nobody(any_shop: Shop) -> None:
    fill(any_shop, {"b": 900, "a": 60})
    fill(any_shop, {"b": 60}, " last", priority=9)
    options = {"queue_order_strategy": "priority"}
    any_shop.worker("-c", "1", "-Q", "b,a", env={"TEST_BROKER_OPTIONS": json.dumps(options)})
    wait_until(lambda: len(any_shop.ran()) == 1020, "all have run", 40)
    ran = any_shop.ran()
    before = ran[: len(ran) - ran[::-1].index("b")]
    # A tenth of 900 for both; less what a window of short tasks holds behind the first queue's last ones.
    assert 15 <= before.count("a") <= 55
    assert 15 <= before.count("b last") <= 55


@pytest.mark.parametrize("options", [{"queue_weights": {"hipri": 0}}, {"lease_timeout": "soon"}, {"lease_timeout": []}])
def test_a_worker_with_an_impossible_option_does_not_start(any_shop: Shop, options: dict[str, Any]) -> None:
    worker: Worker = any_shop.worker(
        "-c", "1", "-Q", "hipri", ready=False, env={"TEST_BROKER_OPTIONS": json.dumps(options)}
    )
    assert worker.wait() == 4
    assert next(iter(options)) in worker.log
    assert "above 0" in worker.log
