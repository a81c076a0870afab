"""The consumer after its own errors: every message is still settled once. Without a process or a server."""

from __future__ import annotations

import json

import pytest

from qworker.pool import Say
from qworker.tasks import Outcome

from support.consumer_bench import Bench, message, started


def test_an_outcome_that_cannot_be_handled_costs_its_message_and_nothing_else(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a", "b")
    bench.turn()
    child.say(Say.DONE, started(child))  # without an outcome
    bench.turn()
    (dead,) = bench.transport.dead_letters()
    assert (dead.reason, dead.raw) == ("internal_error", message("a"))
    assert json.loads(bench.store.stored[-1].meta)["status"] == "FAILURE"
    child.done(started(child))
    bench.turn()
    assert len(bench.ledger) == 0


class Boom(Exception):
    """No error that anybody expects."""


def fail_once_in(bench: Bench, monkeypatch: pytest.MonkeyPatch, target: object, name: str, *, after: bool) -> None:
    """Let the next call of `target.name` fail, `after` it has done its work or before, and run the thread's body."""
    real = getattr(target, name)

    def failing(*args: object, **kwargs: object) -> object:
        monkeypatch.undo()
        if after:
            real(*args, **kwargs)
        raise Boom

    monkeypatch.setattr(target, name, failing)
    while "failed" not in bench.kinds():
        bench.mailbox.post("stop")
        bench.consumer.run()
        bench.consumer._obeying.is_stopped = False


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("transport", "reserve"),
        ("transport", "ack"),
        ("ledger", "receive"),
        ("ledger", "take"),
        ("ledger", "settle"),
        ("ledger", "forget"),
        ("settler", "ack"),
        ("settler", "flush"),
    ],
)
def test_after_any_error_a_new_thread_settles_every_message_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, owner: str, name: str, after: bool
) -> None:
    child = bench.child()
    bench.publish(*"abcdef")
    bench.turn()
    ran: list[bytes] = []

    def work(times: int) -> None:
        for _ in range(times):
            while read := child.read():
                ran.append(read[1])
                child.done(read[0], Outcome(task_id="x"))
            bench.clock.advance(0.01)
            bench.turn(1)

    child.done(started(child))
    ran.append(message("a"))
    target = {"transport": bench.transport.inner, "ledger": bench.ledger, "settler": bench.settler}[owner]
    bench.publish("g")
    bench.clock.advance(3)
    fail_once_in(bench, monkeypatch, target, name, after=after)
    bench.consumer.revive({1})
    bench.clock.advance(20)
    work(60)
    assert sorted(set(ran)) == [message(name) for name in "abcdefg"]
    assert len(bench.ledger) == 0
    assert len(bench.settler) == 0
    bench.other.connect()
    assert bench.waiting() == 0


def test_a_new_thread_buries_children_whose_end_nobody_told(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    started(child)
    child.die()
    bench.consumer.revive(set())
    bench.clock.advance(20)
    bench.turn()
    bench.mailbox.post("drain")
    bench.turn()
    bench.other.connect()
    assert [d.crashes for d in bench.other.reserve(["q"], 10)] == [1]


def test_messages_in_nobodys_hands_are_found(bench: Bench) -> None:
    child = bench.child()
    bench.publish("a")
    bench.turn()
    started(child)
    bench.consumer._dispatcher.seats[1].load = 0  # as after a defect in the books
    bench.turn()
    bench.clock.advance(31)
    with pytest.raises(RuntimeError, match="nobody"):
        bench.turn(1)
    bench.consumer.revive({1})
    bench.clock.advance(20)
    bench.turn()
    assert child.read() == (1, message("a"))
