"""A real worker meets mutated messages on SQS, in every writing: it lives, and every message can be accounted for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from qworker.tasks import TaskExecutor
from qworker.tasks.message import TOO_DEEP
from qworker.transports.sqs_wire import decode_body

from support import Worker, wait_until
from support.chaos.scale import scaled
from support.chaos_table import row as table_row
from support.fuzz import QUEUE, Mutator, digest, executor_in, expected, load_app, made_messages
from support.fuzz.sqs_bodies import Body, bodies
from support.moto_server import MotoServer

pytestmark = pytest.mark.chaos

ROUND = 300
MADE = 20
ROUNDS = scaled(1, 20)
#: What a request of ten may weigh, and a producer's base64.
MOST_BYTES = 15_000
DEAD = "dead"


@pytest.fixture
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskExecutor]:
    with executor_in(tmp_path_factory.mktemp("here")) as executor:
        yield executor


@pytest.mark.timeout(scaled(240, 3600))
def test_mutated_bodies_leave_the_worker_alive_and_every_message_accounted_for(
    sqs: MotoServer,
    tmp_path: Path,
    executor: TaskExecutor,
    seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    for name in (QUEUE, DEAD):
        sqs.queue(name)
    options = {"dead_letter_queue": DEAD, "wait_time_seconds": 1}
    backend = f"sqlite:///{tmp_path}/results.db"
    total: Counter[str] = Counter()
    mutator = Mutator(seed)
    with closing(load_app(tmp_path, broker=sqs.url, result_backend=backend, broker_transport_options=options)) as app:
        arguments = ("-A", "fuzzed", "-c", "2", "-Q", QUEUE, "-l", "WARNING")
        with Worker(tmp_path, *arguments) as worker:
            worker.wait_ready()
            children = {child.pid for child in worker.children()}
            for number in range(ROUNDS):
                raws = [raw for raw in mutator.messages(ROUND - MADE) if len(raw) < MOST_BYTES]
                raws += [raw for raw in made_messages(MADE, seed + number) if len(raw) < MOST_BYTES]
                sent = bodies(raws, seed + number)
                (tmp_path / "runs.txt").unlink(missing_ok=True)
                before = sum(sqs.counts(QUEUE)[1:])
                send(sqs, sent)
                assert app.tasks["fuzz.good"].delay(number).get(timeout=60) == number
                wait_settled(sqs)
                ends, complaints = account(sqs, executor, tmp_path, sent, before)
                assert complaints == []
                total += ends
            assert worker.process.poll() is None
            for trouble in ("died of", "has failed", "Traceback", "cannot be prepared", "cannot be handled"):
                assert trouble not in worker.log
            if "time limit" not in worker.log:
                assert {child.pid for child in worker.children()} == children
            assert worker.stop() == 0
    kinds = {name: total[name] for name in ("run", "expired", "delayed")}
    kinds["dead-lettered"] = total.total() - sum(kinds.values())
    table_row(record_property, "fuzz, SQS", f"{total.total()} mutated messages", kinds, None, seed=seed)


def send(sqs: MotoServer, sent: Sequence[Body]) -> None:
    url = f"{sqs.endpoint}/123456789012/{QUEUE}"
    for at in range(0, len(sent), 10):
        entries = [
            {"Id": str(number), "MessageBody": body.text, "MessageAttributes": body.attributes}
            for number, body in enumerate(sent[at : at + 10])
        ]
        answer = sqs.client.send_message_batch(QueueUrl=url, Entries=entries)
        assert not answer.get("Failed"), answer


def wait_settled(sqs: MotoServer) -> None:
    """Wait until nothing is visible, and what is hidden or delayed stays so for a while."""
    since, seen = time.monotonic(), (-1, -1, -1)

    def is_still() -> bool:
        nonlocal since, seen
        now = sqs.counts(QUEUE)
        if now != seen or now[0]:
            since, seen = time.monotonic(), now
        return time.monotonic() - since > 2.5

    wait_until(is_still, "everything is settled", 90.0)


def account(
    sqs: MotoServer, executor: TaskExecutor, folder: Path, sent: Sequence[Body], hidden_before: int
) -> tuple[Counter[str], list[str]]:
    """How messages ended, and complaints about those that did not end as they have to, if need be after a while."""
    dead: Counter[bytes] = Counter()
    why: dict[bytes, str] = {}
    found: tuple[Counter[str], list[str]] = Counter(), []

    def is_in_order() -> bool:
        nonlocal found
        take_dead_letters(sqs, dead, why)
        found = look(sqs, executor, folder, sent, hidden_before, dead, why)
        return not found[1]

    with suppress(AssertionError):  # complaints tell more
        wait_until(is_in_order, "each message has ended as it has to", 15.0)
    return found


def look(
    sqs: MotoServer,
    executor: TaskExecutor,
    folder: Path,
    sent: Sequence[Body],
    hidden_before: int,
    dead: Counter[bytes],
    why: dict[bytes, str],
) -> tuple[Counter[str], list[str]]:
    path = folder / "runs.txt"
    runs = Counter(path.read_text().split()) if path.exists() else Counter()
    ends: Counter[str] = Counter()
    complaints = []
    for raw, count in Counter(body.raw for body in sent).items():
        end, allowed = expected(executor, raw, count)
        ends[end] += count
        found = (runs[digest(raw)], dead[raw])
        if end == "delayed":
            is_right = found == (0, 0)
        elif TOO_DEEP in (end, why.get(raw)):
            is_right = sum(found) in (0, count)
        elif why.get(raw) == "successor_refused":  # it names a queue that there is not, or that SQS cannot have
            is_right = found == (count, count)
        else:
            is_right = (*found, 0) in allowed and (not found[1] or why[raw] == end)
        if not is_right:
            complaints.append(f"{end}: ran, dead = {found}, {why.get(raw)}, {count} sent: {raw[:1500]!r}")
    hidden = sum(sqs.counts(QUEUE)[1:]) - hidden_before
    if hidden < ends["delayed"]:
        complaints.append(f"{ends['delayed']} messages wait for their time, but only {hidden} are hidden or delayed")
    return ends, complaints


def take_dead_letters(sqs: MotoServer, found: Counter[bytes], why: dict[bytes, str]) -> None:
    """Take all of them from their queue: how many there are of each, and why."""
    while messages := sqs.receive(DEAD, visible_s=600):
        for message in messages:
            attributes = message["MessageAttributes"]
            raw = decode_body(message["Body"], is_base64="qworker.encoding" in attributes)
            found[raw] += 1
            why[raw] = attributes["qworker.reason"]["StringValue"]
            assert attributes["qworker.queue"]["StringValue"] == QUEUE
        for message in messages:
            sqs.client.delete_message(
                QueueUrl=f"{sqs.endpoint}/123456789012/{DEAD}", ReceiptHandle=message["ReceiptHandle"]
            )
