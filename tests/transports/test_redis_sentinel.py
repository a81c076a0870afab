"""`sentinel://`: which server is used, what a failover does to connections, and what people are told."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker.core.errors import ConfigError, ResultStoreError, TransportError
from qworker.results import StoredResult, open_result_store
from qworker.transports import Ack, open_transport

from support import RedisServer
from support.impatience import impatient
from support.messages import envelopes, numbers_of
from support.redis_server import free_port
from support.sentinels import NAME, SentinelSet
from support.stopwatch import Stopwatch
from support.waiting import wait_until

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelSet]:
    """A set whose roles are not changed."""
    with SentinelSet() as watched:
        yield watched


@pytest.fixture
def changing() -> Iterator[SentinelSet]:
    """A set of one's own."""
    with SentinelSet() as changing:
        yield changing


def again(action: Callable[[], Any], what: str) -> Any:
    """Repeat until it works, as the worker does."""
    found: list[Any] = []

    def works() -> bool:
        try:
            found.append(action())
        except (TransportError, ResultStoreError):
            return False
        return True

    wait_until(works, what, 70)
    return found[0]


def test_a_worker_and_a_producer_meet_on_the_master(watched: SentinelSet, open_redis: Open) -> None:
    ours = open_redis("w/1", url=watched.url, **watched.options)
    assert ours.reserve(["hipri"], 9, arm=True) == []
    open_redis(url=watched.url, **watched.options).publish(envelopes(3))
    assert select.select([ours.wake_fd()], [], [], 20)[0]
    ours.drain_wake()
    taken = ours.reserve(["hipri"], 9)
    assert numbers_of(taken) == [0, 1, 2]
    assert ours.ack([Ack(delivery) for delivery in taken]).done == 3


@pytest.mark.parametrize(
    "form",
    ["sentinel://{0};sentinel://{1}/3", "sentinel://{0}/3;sentinel://{1}/3", "sentinel://{0};{1}/3"],
    ids=["last", "each", "short"],
)
def test_the_database_may_stand_behind_any_sentinel(watched: SentinelSet, open_redis: Open, form: str) -> None:
    hosts = [f"127.0.0.1:{sentinel.port}" for sentinel in watched.sentinels]
    open_redis(url=form.format(*hosts), **watched.options).publish(envelopes(1, "third"))
    with watched.servers[0].client(db=3) as behind:
        assert behind.llen("third") == 1
        behind.flushdb()


def test_sentinels_that_are_down_or_silent_are_passed_over(watched: SentinelSet, open_redis: Open) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    down = f"sentinel://127.0.0.1:{free_port()};sentinel://127.0.0.1:{silent.getsockname()[1]}"
    watch = Stopwatch()
    ours = open_redis("w/1", url=f"{down};{watched.url}", **watched.options)
    assert watch.s < 3
    assert ours.reserve(["hipri"], 1) == []
    silent.close()


def test_when_no_sentinel_answers_each_is_named(open_redis: Open) -> None:
    ports = [free_port(), free_port()]
    url = ";".join(f"sentinel://shop:s3cret@127.0.0.1:{port}/0" for port in ports)
    with pytest.raises(TransportError, match="no master 'shop' was found") as caught:
        open_redis("w/1", url=url, master_name=NAME)
    assert all(
        f"sentinel 127.0.0.1:{port} cannot be reached: Connection refused" in str(caught.value) for port in ports
    )
    assert "s3cret" not in str(caught.value)


def test_a_name_that_no_sentinel_knows_is_said_to_be_wrong(watched: SentinelSet, open_redis: Open) -> None:
    with pytest.raises(ConfigError, match=r"knows no master of this name.*correct master_name"):
        open_redis("w/1", url=watched.url, master_name="shpo")


def test_a_server_that_is_no_master_is_not_used(watched: SentinelSet, open_redis: Open) -> None:
    """The sentinel's word is checked: it may be a little behind."""
    replica = watched.servers[1]

    def lie(listener: socket.socket) -> None:
        client, _ = listener.accept()
        client.recv(1000)
        client.sendall(b"+PONG\r\n")
        client.recv(1000)
        port = str(replica.port).encode()
        client.sendall(b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port))
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lie, args=(listener,), daemon=True).start()
        url = f"sentinel://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TransportError, match=f"names 127.0.0.1:{replica.port}, which is a replica"):
            open_redis("w/1", url=url, master_name=NAME)


def test_too_few_other_sentinels_are_not_believed(watched: SentinelSet, open_redis: Open) -> None:
    open_redis("w/1", url=watched.url, min_other_sentinels=2, **watched.options)
    with pytest.raises(TransportError, match="sees 2 other sentinels, min_other_sentinels wants 3"):
        open_redis("w/1", url=watched.url, min_other_sentinels=3, **watched.options)


def test_sentinels_and_master_have_passwords_of_their_own(open_redis: Open) -> None:
    with SentinelSet(password="of-the-master", sentinel_password="of-the-sentinels") as locked:
        open_redis("w/1", url=locked.url, **locked.options).publish(envelopes(1))
        with pytest.raises(ConfigError, match=r"sentinel 127.*NOAUTH.*sentinel_kwargs") as caught:
            open_redis("w/1", url=locked.url, master_name=NAME)
        with pytest.raises(ConfigError, match=r"the master 'shop' at 127\.0\.0\.1:\d+ refused: NOAUTH"):
            open_redis("w/1", url=locked.url.replace(":of-the-master@", ""), **locked.options)
    assert "of-the-" not in str(caught.value)


def test_a_sentinel_that_refuses_the_login_does_not_hide_the_others(watched: SentinelSet, open_redis: Open) -> None:
    with SentinelSet(password="of-the-master", sentinel_password="of-the-sentinels") as locked:
        strange = locked.url.split(";")[0].replace(":of-the-master@", "")
        open_redis("w/1", url=f"{strange};{watched.url}", **watched.options).publish(envelopes(1))


def test_a_connection_survives_the_death_of_the_master(changing: SentinelSet, open_redis: Open) -> None:
    ours = open_redis("w/1", url=changing.url, **changing.options)
    producer = open_redis(url=changing.url, **changing.options)
    producer.publish(envelopes(4))
    held = ours.reserve(["hipri"], 2)
    with changing.client(changing.servers[0]) as behind:
        assert behind.wait(1, 5000) == 1
    changing.fail_over()
    again(ours.connect, "the worker is on the new master")
    assert list(ours.extend(held).lost) == []
    assert ours.ack([Ack(delivery) for delivery in held]).done == 2
    assert numbers_of(ours.reserve(["hipri"], 9)) == [2, 3]
    again(lambda: producer.publish(envelopes(1, start=4)), "the producer is on the new master")
    assert numbers_of(ours.reserve(["hipri"], 9)) == [4]


def test_a_master_that_hangs_is_left_and_not_trusted_when_it_is_back(changing: SentinelSet, open_redis: Open) -> None:
    ours = open_redis("w/1", url=changing.url, **changing.options)
    ours.publish(envelopes(2))
    held = ours.reserve(["hipri"], 1)
    hung = changing.servers[0]
    with changing.client(hung) as behind:
        assert behind.wait(1, 5000) == 1
    hung.freeze()
    try:
        watch = Stopwatch()
        with impatient(ours, 0.5), pytest.raises(TransportError, match=r"did not answer within 0\.5 s"):
            ours.extend(held)
        assert watch.s < 3
        changing.give_up(hung)
        again(ours.connect, "the worker is on the new master")
    finally:
        hung.thaw()
    again(ours.connect, "the worker is on the new master still")
    assert ours.ack([Ack(delivery) for delivery in held]).done == 1
    with changing.client(changing.servers[1]) as behind:
        assert behind.role()[0] == b"master"
        assert behind.llen("hipri") == 1


def test_a_master_that_becomes_a_replica_is_left_and_nothing_is_lost_with_it(open_redis: Open) -> None:
    """It goes on taking writes for a while, which are lost; unless it needs a replica for it."""
    with SentinelSet(careful=True) as changing:
        _switch_roles(changing, open_redis)


def _switch_roles(changing: SentinelSet, open_redis: Open) -> None:
    ours = open_redis("w/1", url=changing.url, **changing.options)
    producer = open_redis(url=changing.url, **changing.options)
    producer.publish(envelopes(1))
    promoted = changing.switch()
    again(lambda: producer.publish(envelopes(1, start=1)), "the producer is on the new master")
    with changing.client(promoted) as behind:
        assert behind.llen("hipri") == 2
    again(ours.connect, "the worker is on the new master")
    assert numbers_of(ours.reserve(["hipri"], 9)) == [0, 1]


def test_a_demoted_server_that_keeps_its_connections_is_left_at_the_first_refusal(open_redis: Open) -> None:
    """Sentinel closes a demoted master's connections; a person with REPLICAOF does not."""
    with RedisServer() as old, RedisServer() as new:
        store = open_result_store(old.url, settings={})
        assert store is not None
        result = StoredResult("a", b'{"status": "SUCCESS"}', True)
        store.store([result])
        producer = open_redis(url=old.url)
        producer.publish(envelopes(1))
        with old.client() as behind:
            behind.replicaof("127.0.0.1", new.port)
            before = behind.info("stats")["total_connections_received"]
            with pytest.raises(ResultStoreError, match="READONLY"):
                store.store([result])
            with pytest.raises(TransportError, match=r"READONLY.*a failover may be under way"):
                producer.publish(envelopes(1))
            behind.replicaof("no", "one")
            store.store([result])
            producer.publish(envelopes(1))
            assert behind.info("stats")["total_connections_received"] == before + 2
        store.close()


def test_results_go_to_the_master_and_follow_it(changing: SentinelSet) -> None:
    settings = {"result_backend_transport_options": changing.options}
    store, reader = (open_result_store(changing.url, settings=settings) for _ in range(2))
    assert store is not None
    assert reader is not None
    store.store([StoredResult("before", b'{"status": "SUCCESS"}', True)])
    assert reader.wait("before", 5) == b'{"status": "SUCCESS"}'
    with changing.client(changing.servers[0]) as behind:
        assert behind.wait(1, 5000) == 1
    changing.fail_over()
    again(lambda: store.store([StoredResult("after", b'{"status": "SUCCESS"}', True)]), "the result is stored")
    assert again(lambda: reader.wait("after", 5), "the new master is asked") == b'{"status": "SUCCESS"}'
    assert reader.fetch("before") == b'{"status": "SUCCESS"}'
    store.close()
    reader.close()


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("sentinel://a;sentinel://b", {}, "needs the master's name"),
        ("sentinel://a/1;sentinel://b/2", {"master_name": "m"}, "several databases"),
        ("sentinel://a:x;sentinel://b", {"master_name": "m"}, "port"),
        ("sentinel://a", {"master_name": "m", "sentinel_kwargs": {"pasword": "s3cret"}}, "'password'"),
        ("sentinel://a", {"master_name": "m", "sentinel_kwargs": "s3cret"}, "must be a dict"),
        ("sentinel://a", {"master_name": "m", "min_other_sentinels": -1}, "0 or more"),
        ("sentinel://a", {"master_nam": "m"}, "'master_name'"),
    ],
)
def test_a_wrong_sentinel_url_or_option_says_what_is_wrong(url: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_transport(url, options=options)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_master_s_name_may_stand_in_the_url() -> None:
    open_transport("sentinel://a;sentinel://b/0?master_name=m")


def test_the_sentinels_of_a_result_backend_are_called_by_its_own_name() -> None:
    with pytest.raises(ConfigError, match="result_backend_transport_options has no 'master_name'"):
        open_result_store("sentinel://a", settings={})
