"""A real worker meets mutated messages: it lives on, its children too, and every message can be accounted for."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qworker.cli.entry import run
from qworker.tasks import TaskExecutor
from qworker.transports import seal_of

from support import RedisServer, Worker
from support.brokers import InRedis, InSqlite
from support.chaos.scale import scaled
from support.chaos_table import row as table_row
from support.fuzz import Farm, Mutator, account, executor_in, made_messages

pytestmark = pytest.mark.chaos

ROUND = 3000
MADE = 60  # of them from nothing, which takes longer
ROUNDS = scaled(1, 34)


@pytest.fixture(params=["redis", "sqlite"])
def farm(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> Iterator[Farm]:
    if request.param == "redis":
        made = Farm(tmp_path, redis_server.url, redis_server.url.removesuffix("0") + "1", InRedis(redis_server))
    else:
        made = Farm(tmp_path, f"sqlite:///{tmp_path}/broker.db", f"sqlite:///{tmp_path}/results.db", InSqlite(tmp_path))
    yield made
    made.close()


@pytest.fixture
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskExecutor]:
    logging.disable()
    with executor_in(tmp_path_factory.mktemp("here")) as executor:
        yield executor
    logging.disable(logging.NOTSET)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    with ExitStack() as stack:
        arguments = ("-A", "fuzzed", "-c", "2", "-Q", "fuzz", "-l", "WARNING")
        yield lambda: stack.enter_context(Worker(tmp_path, *arguments)).wait_ready()


@pytest.mark.timeout(scaled(400, 7200))
def test_mutated_messages_leave_the_worker_alive_and_every_message_accounted_for(
    farm: Farm,
    executor: TaskExecutor,
    start: Callable[[], Worker],
    seed: int,
    record_property: Callable[[str, object], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    worker = start()
    total: Counter[str] = Counter()
    children = {child.pid for child in worker.children()}
    mutator = Mutator(seed)
    for number in range(ROUNDS):
        farm.clear()
        messages = mutator.messages(ROUND - MADE) + made_messages(MADE, seed + number)
        good = []
        for at in range(0, ROUND, 100):
            farm.publish(messages[at : at + 100])
            good.append(farm.app.tasks["fuzz.good"].delay(at))
        assert [result.get(timeout=120) for result in good] == list(range(0, ROUND, 100))
        farm.wait_settled(120)
        ends, complaints = account(farm, executor, messages)
        assert complaints == []
        total += ends
    assert total.total() == ROUND * ROUNDS
    kinds = {name: total[name] for name in ("run", "expired", "delayed")}
    kinds["dead-lettered"] = total.total() - sum(kinds.values())
    table_row(record_property, f"fuzz, {farm.name}", f"{total.total()} mutated messages", kinds, None, seed=seed)
    assert worker.process.poll() is None
    for trouble in ("died of", "has failed", "Traceback", "cannot be prepared"):
        assert trouble not in worker.log
    if "time limit" not in worker.log:
        assert {child.pid for child in worker.children()} == children
    assert worker.stop() == 0
    dead = farm.places()["dead"]
    check_commands(farm, capfd, dead.total())
    count = farm.requeue_dead(10 * ROUND)
    places = farm.places()
    assert count + places["dead"].total() == dead.total()
    assert all(seal_of(raw) for raw in places["dead"]), "of those that bear the same lock only one can come back"
    assert dead - places["ready"] == places["dead"], "requeueing puts the original bytes back"


def check_commands(farm: Farm, capfd: pytest.CaptureFixture[str], count: int) -> None:
    """The command line can show every one of them."""
    capfd.readouterr()
    assert run(["-b", farm.url, "dead", "list", "--json", "--limit", str(count)]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(rows) == count
    assert run(["-b", farm.url, "dead", "list", "--limit", str(count)]) == 0
    assert capfd.readouterr().out.count("\n") == count + 1
    for row in rows[: scaled(10, 100)]:
        assert run(["-b", farm.url, "dead", "show", row["token"]]) == 0
        shown = capfd.readouterr().out
        assert [line for line in shown.splitlines() if not line.isprintable()] == []
