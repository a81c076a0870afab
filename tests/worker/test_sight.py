"""What waits on the queues: asked of the broker only for somebody, and never at the price of the connection again."""

from __future__ import annotations

from support.consumer_bench import Bench


def test_nobody_asks_the_broker_unless_somebody_wants_to_know(bench: Bench) -> None:
    bench.turn(10)
    assert bench.transport.calls["oldest"] == 0
    assert bench.consumer.sight.ask(0.0) is None
    bench.turn()
    sight = bench.consumer.sight.ask(0.0)
    assert sight is not None
    assert sight.depths == {"q": 0}
    assert bench.transport.calls["oldest"] == 1


def test_an_answer_is_given_again_for_some_seconds(bench: Bench) -> None:
    bench.turn()
    for _ in range(100):
        bench.consumer.sight.ask(0.0)
        bench.turn(1)
    assert bench.transport.calls["oldest"] == 1
    bench.clock.advance(5.0)
    bench.consumer.sight.ask(0.0)
    bench.turn()
    assert bench.transport.calls["oldest"] == 2


def test_nothing_is_known_while_the_broker_is_away(bench: Bench) -> None:
    bench.turn()
    bench.consumer.sight.ask(0.0)
    bench.turn()
    assert bench.consumer.sight.ask(0.0) is not None
    bench.transport.go_down()
    bench.clock.advance(60.0)
    bench.turn()
    assert bench.consumer.sight.ask(0.0) is None


def test_a_broker_that_refuses_the_question_is_asked_ever_later(bench: Bench) -> None:
    bench.turn()
    bench.transport.fail_before("oldest", times=100)
    for _ in range(120):
        bench.consumer.sight.ask(0.0)
        bench.clock.advance(1.0)
        bench.turn()
    assert 2 <= bench.transport.calls["oldest"] <= 6
