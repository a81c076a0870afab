"""Publishing over a bad connection: sent once, or an error that says what is known about it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker import App
from qworker.core.errors import TransportError
from qworker.transports import Transport

from support import RedisServer
from support.impatience import impatient
from support.listener import Listener
from support.messages import envelope, envelopes
from support.proxy import Proxy
from support.server_states import REFUSALS, full

Open = Callable[..., Any]


@pytest.fixture
def app_on() -> Iterator[Callable[..., App]]:
    opened: list[App] = []

    def make(url: str, **settings: Any) -> App:
        opened.append(App("shop", broker=url, task_default_queue="hipri", **settings))
        return opened[-1]

    yield make
    for app in opened:
        app.close()


def failure(transport: Transport, later: bool = False) -> TransportError:
    due = time.time() + 600 if later else None
    with pytest.raises(TransportError) as caught:
        transport.publish([envelope(0, due=due)])
    return caught.value


def test_what_could_not_be_sent_for_want_of_a_connection_is_known_not_to_be(open_redis: Open, own_server: Any) -> None:
    producer = open_redis(url=own_server.url)
    own_server.stop()
    assert failure(producer).nothing_sent
    assert failure(producer).nothing_sent


def test_what_was_sent_and_not_answered_is_not_known_either_way(open_redis: Open, proxy: Proxy) -> None:
    producer = open_redis(url=proxy.url)
    producer.publish(envelopes(1))
    proxy.swallows_replies = True
    with impatient(producer, 0.3):
        assert not failure(producer).nothing_sent


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_the_server_refuses_is_known_not_to_be_sent(
    open_redis: Open, own_server: RedisServer, refusal: str, later: bool
) -> None:
    producer = open_redis(url=own_server.url)
    producer.publish(envelopes(1))
    with REFUSALS[refusal](own_server):
        error = failure(producer, later)
        assert refusal in str(error)
        assert error.nothing_sent


def test_a_send_is_repeated_when_the_broker_comes_back_in_time(
    app_on: Callable[..., App], own_server: RedisServer
) -> None:
    app = app_on(own_server.url, task_publish_retry_policy={"max_retries": None, "interval_max": 0.1})
    app.send_task("first")
    own_server.stop()
    restart = threading.Timer(0.5, own_server.start)
    restart.start()
    app.send_task("second")
    restart.join()
    with own_server.client() as behind:
        assert behind.llen("hipri") == 1  # the server has forgotten the first one


class Closed(Listener):
    """A server that closes every connection at once, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def welcome(self, client: socket.socket) -> None:
        self.count += 1  # before the client can know that it is closed
        client.close()


def test_a_send_is_repeated_as_often_as_the_policy_says(app_on: Callable[..., App]) -> None:
    policy = {"max_retries": 2, "interval_start": 0.2, "interval_step": 0.2, "interval_max": 0.3}
    with Closed() as closed:
        app = app_on(closed.url, task_publish_retry_policy=policy)

        def attempts(**options: Any) -> tuple[int, float]:
            """How many there were, and how many seconds they took."""
            count, began = closed.count, time.monotonic()
            with pytest.raises(TransportError, match="cannot be reached") as caught:
                app.send_task("never", **options)
            assert "not known" not in str(caught.value)
            return closed.count - count, time.monotonic() - began

        count, took_s = attempts()
        assert count == 3
        assert took_s >= 0.5
        assert attempts(retry=False)[0] == 1
        count, took_s = attempts(retry_policy={"max_retries": 1})
        assert count == 2
        assert took_s >= 0.2
        app.conf.task_publish_retry = False
        assert attempts()[0] == 1


def test_a_send_whose_reply_is_lost_is_not_repeated(app_on: Callable[..., App], proxy: Proxy, open_redis: Open) -> None:
    app, looker = app_on(proxy.url), open_redis()
    app.send_task("first")
    with (
        proxy.lost_replies(lambda: looker.depths(["hipri"]) == {"hipri": 2}),
        pytest.raises(TransportError, match="whether the message was queued is not known"),
    ):
        app.send_task("second")
    assert looker.depths(["hipri"]) == {"hipri": 2}


def test_a_full_server_refuses_a_send_in_words_that_help(app_on: Callable[..., App], own_server: RedisServer) -> None:
    app = app_on(own_server.url, task_publish_retry=False)
    with full(own_server), pytest.raises(TransportError, match=r"OOM.*raise maxmemory or drain the queues") as caught:
        app.send_task("first")
    assert "not known" not in str(caught.value)


@pytest.mark.parametrize("idle_s", [0.0, 0.2])
def test_a_connection_that_the_server_has_closed_loses_and_repeats_nothing(
    app_on: Callable[..., App], own_server: RedisServer, idle_s: float
) -> None:
    app = app_on(own_server.url)
    with own_server.client() as behind:
        for _ in range(20):
            app.send_task("one")
            behind.client_kill_filter(_type="normal", skipme=True)
            time.sleep(idle_s / 10)
        app.send_task("one")
        assert behind.llen("hipri") == 21


def test_half_of_a_batch_that_was_sent_is_not_called_nothing(open_redis: Open, own_server: RedisServer) -> None:
    """What is due later goes in a second write, before which the server is lost."""
    with Proxy(own_server.port) as proxy:
        producer = open_redis(url=proxy.url)
        producer.publish([*envelopes(1), envelope(1, due=time.time() + 600)])
        proxy.interrupt_before(b"EVALSHA", proxy.cut)
        with pytest.raises(TransportError) as caught:
            producer.publish([*envelopes(1), envelope(1, due=time.time() + 600)])
        assert not caught.value.nothing_sent


def test_a_batch_whose_second_half_is_refused_is_not_called_nothing(open_redis: Open, own_server: RedisServer) -> None:
    producer = open_redis(url=own_server.url)
    producer.publish([*envelopes(1), envelope(1, due=time.time() + 600)])
    with own_server.client() as behind:
        behind.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-eval", "-evalsha"])
        with pytest.raises(TransportError) as caught:
            producer.publish([*envelopes(1), envelope(1, due=time.time() + 600)])
        assert not caught.value.nothing_sent
        assert behind.llen("hipri") == 2
