"""In one process: whatever the bytes, executing them ends in an outcome that can be settled, and in nothing else."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qworker.core.errors import WorkerLostError
from qworker.pool import unpack_outcome
from qworker.pool.wire import RECORD, pack_limits, pack_outcome
from qworker.tasks import Action, Outcome, TaskExecutor, identify, loads, lost_outcome

from support.chaos.scale import scaled
from support.fuzz import REASONS, Mutator, executor_in, made_messages, sound_messages

pytestmark = pytest.mark.chaos

RARE = {"bad_eta", "bad_expires", "bad_header", "unknown_compression", "rejected", "payload_missing"}
#: How mutated messages end.
COMMON = {"SUCCESS", "FAILURE", "RETRY", "PARK", "expired"} | REASONS - RARE


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[TaskExecutor]:
    logging.disable()  # thousands of refusals
    with executor_in(tmp_path) as executor:
        yield executor
    logging.disable(logging.NOTSET)


def check_message(executor: TaskExecutor, raw: bytes) -> str:
    """Do with `raw` what a worker does; returns how it ended."""
    identify(raw)
    assert lost_outcome(raw, WorkerLostError("x"), {}, ()).action is Action.REQUEUE
    job = executor.prepare(raw, "fuzz", 0)
    if isinstance(job, Outcome):
        check_outcome(job)
        return job.reason or ("expired" if job.action is Action.ACK else job.action.name)
    job.text.encode()
    pack_limits(1, job.soft_s, job.hard_s, job.acks_on_timeout, job.stores)
    outcome = job.run()
    check_outcome(outcome)
    if outcome.action is Action.ACK and outcome.meta is not None:
        status: str = loads(outcome.meta)["status"]
        return status
    return outcome.action.name


def check_outcome(outcome: Outcome) -> None:
    """It survives the way to the master, and the master can tell it to the broker and the result store."""
    arrived = unpack_outcome(pack_outcome(1, outcome)[RECORD.size :])
    assert (arrived.action, arrived.task_id, arrived.meta) == (outcome.action, outcome.task_id, outcome.meta)
    if outcome.action is Action.REJECT:
        assert outcome.reason in REASONS
    if outcome.action is Action.PARK:
        assert outcome.due is not None
        assert math.isfinite(outcome.due)
    if outcome.meta is not None:
        assert outcome.task_id
        loads(outcome.meta)
    for envelope in arrived.successors:
        envelope.queue.encode()
        assert envelope.queue
        assert 0 <= envelope.priority < 2**63
        assert envelope.due is None or math.isfinite(envelope.due)
    for task_id, meta in arrived.others:
        task_id.encode()
        loads(meta)


@pytest.mark.timeout(scaled(180, 3600))
def test_any_mutated_message_ends_in_an_outcome(executor: TaskExecutor, seed: int) -> None:
    ends: Counter[str] = Counter()
    for number, raw in enumerate(mutated_until(lambda: set(ends) >= COMMON, seed)):
        try:
            ends[check_message(executor, raw)] += 1
        except BaseException as error:
            raise AssertionError(f"message {number}: {error!r}: {raw[:2000]!r}") from error
    print(ends)  # noqa: T201
    assert set(ends) >= COMMON, "the mutator has grown tame"


def mutated_until(is_enough: Callable[[], bool], seed: int) -> Iterator[bytes]:
    """So many messages of a mutator; many more of them while it is not enough, so that luck decides nothing."""
    mutator = Mutator(seed)
    count = scaled(2_500, 100_000)
    for number in range(20 * count):
        if number >= count and is_enough():
            break
        yield mutator.message()


@pytest.mark.timeout(scaled(180, 3600))
def test_any_message_made_from_nothing_ends_in_an_outcome(executor: TaskExecutor, seed: int) -> None:
    messages = made_messages(scaled(200, 10_000), seed)
    ends = Counter(check_message(executor, raw) for raw in messages)
    print(ends)  # noqa: T201
    assert ends["SUCCESS"] >= scaled(20, 1_000), "the sound ones among them"
    assert set(ends) & REASONS, "nothing is wrong with any"


def test_a_message_made_from_nothing_that_is_right_in_every_part_runs(executor: TaskExecutor, seed: int) -> None:
    assert {check_message(executor, raw) for raw in sound_messages(scaled(50, 1_000), seed)} == {"SUCCESS"}


def test_the_same_seed_gives_the_same_messages(seed: int) -> None:
    assert Mutator(seed).messages(50) == Mutator(seed).messages(50)
    assert made_messages(20, seed) == made_messages(20, seed)
