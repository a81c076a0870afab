"""In one process: whatever the bytes, executing them ends in an outcome that can be settled, and in nothing else."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from qworker.core.errors import WorkerLostError
from qworker.pool import unpack_outcome
from qworker.pool.wire import RECORD, pack_limits, pack_outcome
from qworker.tasks import Action, Outcome, TaskExecutor, identify, loads, lost_outcome
from qworker.tasks import message as reasons

from support import fuzz
from support.chaos.scale import scaled
from support.fuzz import Mutator, made_messages

#: Why a message may be refused.
REASONS = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
REASONS |= {"unknown_task", "unsupported_canvas", "rejected"}


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[TaskExecutor]:
    (tmp_path / "fuzzed.py").write_text((Path(fuzz.__file__).parent / "fuzz_app.py").read_text())
    spec = importlib.util.spec_from_file_location("fuzzed", tmp_path / "fuzzed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.app.conf.update(result_backend="disabled-but-encoded", result_extended=True)
    executor = TaskExecutor(module.app, "fuzz@here")
    executor.stores_results = True  # outcomes carry what would be stored
    logging.disable()  # a hundred thousand refusals
    yield executor
    logging.disable(logging.NOTSET)
    module.app.close()


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
    record = pack_outcome(1, outcome)
    arrived = unpack_outcome(record[RECORD.size :])
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


@pytest.mark.timeout(scaled(60, 1800))
def test_any_mutated_message_ends_in_an_outcome(executor: TaskExecutor, seed: int) -> None:
    messages = Mutator(seed).messages(scaled(2_500, 100_000)) + made_messages(scaled(100, 5_000), seed)
    ends: Counter[str] = Counter()
    for number, raw in enumerate(messages):
        try:
            ends[check_message(executor, raw)] += 1
        except BaseException as error:
            raise AssertionError(f"message {number}: {error!r}: {raw[:2000]!r}") from error
    print(ends)  # noqa: T201
    rare = {"bad_eta", "bad_expires", "bad_header", "unknown_compression", "rejected"}
    assert {"SUCCESS", "FAILURE", "RETRY", "PARK", "expired"} | REASONS - rare <= set(ends), (
        "the mutator has grown tame"
    )
