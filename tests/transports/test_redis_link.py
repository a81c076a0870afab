"""Connections to Redis: time-outs, outages, forks."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from qworker.core.errors import TransportError
from qworker.transports import Ack, Link, open_transport, read_url
from qworker.transports.redis_scripts import CLAIM

from support import RedisServer
from support.impatience import impatient
from support.messages import envelope, envelopes, numbers_of
from support.proxy import Proxy
from support.stopwatch import Stopwatch
from support.waiting import wait_until

Open = Callable[..., Any]
_KEEPALIVE = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


@pytest.mark.parametrize("idle_s", [0.0, 1.1], ids=["busy", "idle"])
def test_a_worker_never_reconnects_unseen(open_redis: Open, behind: redis.Redis, idle_s: float) -> None:
    """It would wait on the descriptor of the closed connection, and be deaf for ever."""
    ours = open_redis("w/1", client_name="ours")
    assert ours.reserve(["hipri"], 1, arm=True) == []
    commands = [c["id"] for c in behind.client_list() if c["name"] == "ours" and not int(c["sub"])]
    for number in commands:
        behind.client_kill_filter(_id=number)
    time.sleep(idle_s)  # only a connection that was idle is looked at before a command
    for _ in range(2):
        with pytest.raises(TransportError):
            ours.reserve(["hipri"], 1, arm=True)
    ours.connect()
    assert ours.reserve(["hipri"], 1, arm=True) == []
    ours.publish(envelopes(1))
    assert select.select([ours.wake_fd()], [], [], 20)[0]


def test_user_database_and_client_name_come_from_url_and_options(own_server: RedisServer) -> None:
    with own_server.client() as behind:
        behind.acl_setuser("sh@p", enabled=True, passwords=["+p:w/d"], keys=["*"], channels=["*"], commands=["+@all"])
        url = own_server.url.replace("//", "//sh%40p:p%3Aw%2Fd@").removesuffix("0") + "3"
        transport = open_transport(url, options={"client_name": "me"}, owner="w/1")
        transport.connect()
        clients = [client for client in behind.client_list() if client["name"] == "me"]
        assert [(client["user"], client["db"]) for client in clients] == [("sh@p", "3")] * 2
        transport.close()


def test_a_server_that_does_not_answer_costs_the_time_out_and_no_more(
    own_server: RedisServer, open_redis: Open
) -> None:
    ours = open_redis("w/1", url=own_server.url)
    own_server.freeze()
    try:
        before, watch = time.monotonic(), Stopwatch()
        with impatient(ours, 0.3), pytest.raises(TransportError, match=r"did not answer within 0\.3 s"):
            ours.reserve(["hipri"], 1)
        assert time.monotonic() - before > 0.25
        assert watch.s < 3
    finally:
        own_server.thaw()
    ours.connect()
    assert ours.reserve(["hipri"], 1) == []


def test_a_reply_that_trickles_in_ends_in_a_time_out() -> None:
    """One byte now and then keeps a socket's own time-out from ever firing."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"

    def trickle() -> None:
        client, _ = listener.accept()
        try:
            client.sendall(b"$1000\r\n")
            while True:
                client.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            client.close()

    threading.Thread(target=trickle, daemon=True).start()
    watch = Stopwatch()
    with pytest.raises(TransportError, match="did not answer"):
        open_transport(url, options={"socket_timeout": 0.4}).connect()
    assert watch.s < 3
    listener.close()


def test_something_else_than_redis_is_no_broker() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        client, _ = listener.accept()
        client.recv(100)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        client.close()

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(TransportError, match="cannot be reached"):
        open_transport(f"redis://127.0.0.1:{listener.getsockname()[1]}/0").connect()
    listener.close()


def test_a_producer_does_not_notice_that_its_idle_connection_was_closed(open_redis: Open, behind: redis.Redis) -> None:
    producer = open_redis(client_name="idle")
    producer.publish(envelopes(1))
    kill_clients(behind, "idle")
    time.sleep(1.1)  # a connection that was used a moment ago is not asked
    producer.publish(envelopes(1))
    assert producer.depths(["hipri"]) == {"hipri": 2}


def test_a_producer_survives_a_firewall_that_forgot_its_connection(open_redis: Open, proxy: Proxy) -> None:
    producer = open_redis(url=proxy.url, health_check_interval=1.0, socket_timeout=2.0)
    producer.publish(envelopes(1))
    proxy.forget()
    time.sleep(1.1)
    producer.publish(envelopes(1))
    assert producer.depths(["hipri"]) == {"hipri": 2}


def test_a_lost_reply_of_an_ack_is_an_error_and_its_repetition_harmless(
    open_redis: Open, proxy: Proxy, behind: redis.Redis
) -> None:
    ours = open_redis("w/1", url=proxy.url)
    ours.publish(envelopes(1))
    acks = [Ack(delivery, [envelope(1, "next")]) for delivery in ours.reserve(["hipri"], 1)]
    ours.ack([])  # the server knows the script now
    with proxy.lost_replies(lambda: behind.hlen("unacked") == 0), pytest.raises(TransportError):
        ours.ack(acks)
    ours.connect()
    assert list(ours.ack(acks).lost) == [acks[0].delivery.tag]
    assert ours.depths(["next"]) == {"next": 1}


def test_a_lost_reply_of_a_reserve_is_recalled(open_redis: Open, proxy: Proxy, behind: redis.Redis) -> None:
    ours = open_redis("w/1", url=proxy.url)
    assert ours.reserve(["hipri"], 1) == []  # the server knows the script now
    ours.publish(envelopes(3))
    with proxy.lost_replies(lambda: behind.hlen("unacked") == 2), pytest.raises(TransportError):
        ours.reserve(["hipri"], 2)
    ours.connect()
    assert numbers_of(ours.recall(())) == [0, 1]
    assert numbers_of(ours.reserve(["hipri"], 9)) == [2]


def test_a_server_that_forgets_a_script_while_it_is_loaded_again_is_no_error(
    open_redis: Open, behind: redis.Redis, proxy: Proxy
) -> None:
    ours = open_redis("w/1", url=proxy.url)
    ours.publish(envelopes(1))

    def forget_once_loaded() -> None:
        wait_until(lambda: behind.script_exists(CLAIM.sha)[0], "it is loaded")
        behind.script_flush()

    proxy.interrupt_before(b"EVALSHA", behind.script_flush)
    proxy.interrupt_before(b"EVALSHA", forget_once_loaded)
    proxy.interrupt_before(b"EVAL\r\n", forget_once_loaded)
    assert len(ours.reserve(["hipri"], 1)) == 1


def test_a_cut_connection_is_an_error_and_made_anew_by_connect(open_redis: Open, proxy: Proxy) -> None:
    ours = open_redis("w/1", url=proxy.url)
    proxy.cut()
    with pytest.raises(TransportError, match="closed"):
        ours.maintain()
    ours.connect()
    assert ours.maintain().moved == 0


def test_a_broken_wake_up_connection_is_noticed_at_once(open_redis: Open, behind: redis.Redis) -> None:
    ours = open_redis("w/1")
    assert ours.reserve(["hipri"], 1, arm=True) == []
    subscribed = [client["id"] for client in behind.client_list() if int(client["sub"])]
    behind.client_kill_filter(_id=subscribed[0])
    assert select.select([ours.wake_fd()], [], [], 20)[0]
    with pytest.raises(TransportError, match="closed the connection"):
        ours.drain_wake()
    ours.connect()
    assert ours.reserve(["hipri"], 1, arm=True) == []
    ours.publish(envelopes(1))
    assert select.select([ours.wake_fd()], [], [], 20)[0]


def test_a_wake_up_connection_that_only_seems_open_is_found_out(open_redis: Open, proxy: Proxy) -> None:
    """It would leave the worker deaf: no wake-up ever comes, and no error either."""
    ours = open_redis("w/1", url=proxy.url, health_check_interval=0.1, socket_timeout=2.0)
    ours.maintain()
    proxy.deafen(b"SUBSCRIBE")

    def found_out() -> bool:
        try:
            ours.maintain()
        except TransportError as error:
            return "is dead" in str(error)
        return False

    wait_until(found_out, "the dead connection is noticed")


def test_a_living_wake_up_connection_passes_its_check(open_redis: Open) -> None:
    ours = open_redis("w/1", health_check_interval=0.05, socket_timeout=2.0)
    end = time.monotonic() + 2.3  # a check that was passed over would end the connection meanwhile
    while time.monotonic() < end:
        ours.maintain()
        if select.select([ours.wake_fd()], [], [], 0.02)[0]:
            ours.drain_wake()


def test_a_forked_child_uses_a_connection_of_its_own(open_redis: Open, behind: redis.Redis) -> None:
    producer = open_redis()
    producer.publish(envelopes(1))
    before = behind.info("stats")["total_connections_received"]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            producer.publish(envelopes(1, start=1))
            producer.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    producer.publish(envelopes(1, start=2))
    assert behind.info("stats")["total_connections_received"] == before + 1
    assert numbers_of(open_redis("w/1").reserve(["hipri"], 9)) == [0, 1, 2]


def test_an_exception_in_the_middle_of_a_call_does_not_shift_the_replies(
    own_server: RedisServer, open_redis: Open
) -> None:
    """The reply that was not read must not be taken for that of the next call."""

    class Cut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise Cut

    producer = open_redis(url=own_server.url)
    producer.publish([*envelopes(3, "a"), *envelopes(5, "b")])

    def ask() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        producer.depths(["a"])

    previous = signal.signal(signal.SIGALRM, cut)
    own_server.freeze()
    try:
        with pytest.raises(Cut):
            ask()
    finally:
        signal.signal(signal.SIGALRM, previous)
        own_server.thaw()
    assert producer.depths(["b"]) == {"b": 5}


def test_a_restarted_server_is_found_again(own_server: RedisServer, open_redis: Open) -> None:
    ours = open_redis("w/1", url=own_server.url)
    own_server.stop()
    with pytest.raises(TransportError):
        ours.reserve(["hipri"], 1)
    with pytest.raises(TransportError, match="refused"):
        ours.connect()
    own_server.start()
    ours.connect()
    ours.publish(envelopes(1))
    assert numbers_of(ours.reserve(["hipri"], 1)) == [0]


def test_a_closed_transport_says_nothing_and_takes_no_time(own_server: RedisServer, open_redis: Open) -> None:
    ours = open_redis("w/1", url=own_server.url)
    own_server.stop()
    watch = Stopwatch()
    ours.close()
    ours.close()
    assert watch.s < 3  # a time-out is 5 s


def test_a_unix_socket_works(tmp_path: Path, open_redis: Open) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer("--unixsocket", str(path)):
        ours = open_redis("w/1", url=f"redis+socket://{path}?virtual_host=2")
        ours.publish(envelopes(1))
        wait_until(lambda: ours.depths(["hipri"])["hipri"], "the message is there")
        with redis.Redis(unix_socket_path=str(path), db=2) as behind:
            assert behind.llen("hipri") == 1


def test_keepalive_options_reach_the_socket(redis_url: str) -> None:
    """As numbers, by name, and as the text that becomes of a number on its way through JSON."""
    idle: dict[Any, int] = {socket.TCP_KEEPIDLE: 61, "TCP_KEEPINTVL": 7, str(int(socket.TCP_KEEPCNT)): 3}
    endpoint, _ = read_url(redis_url, {"socket_keepalive_options": idle})
    link = Link(endpoint)
    with socket.socket(fileno=os.dup(link.fileno())) as seen:
        assert seen.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        values = [seen.getsockopt(socket.IPPROTO_TCP, option) for option in _KEEPALIVE]
    link.close()
    assert values == [61, 7, 3]
    endpoint, _ = read_url(redis_url, {"socket_keepalive": False})
    link = Link(endpoint)
    with socket.socket(fileno=os.dup(link.fileno())) as seen:
        assert seen.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    link.close()


def test_the_wake_up_connection_goes_to_the_very_same_server(open_redis: Open, redis_server: RedisServer) -> None:
    """A name can lead elsewhere a moment later; a subscription there would never be told of anything."""
    ours = open_redis("w/1", url=f"redis://localhost:{redis_server.port}/0", client_name="twins")
    with redis_server.client() as behind:
        twins = [client["laddr"] for client in behind.client_list() if client["name"] == "twins"]
    assert len(twins) == 2
    assert len(set(twins)) == 1
    ours.close()


def kill_clients(behind: redis.Redis, name: str) -> None:
    for client in behind.client_list():
        if client["name"] == name:
            behind.client_kill_filter(_id=client["id"])
