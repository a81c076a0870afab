"""A worker whose results go to DynamoDB: from the start, which needs the table, to a table that is away for a while."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from qworker import __version__

from support import Shop, wait_until
from support.moto_server import KEY_ID, LOGIN, SECRET, MotoServer
from support.stopwatch import Stopwatch

ShopOn = Callable[[str, str], Shop]


def url(server: MotoServer, parameters: str = "") -> str:
    """Of a table that is not there yet, at a server that answers at once."""
    with closing(server.client_of("dynamodb")) as client:
        client.list_tables()  # moto loads a service when it is first asked for it: that may take seconds
    return f"dynamodb://{LOGIN}@{server.place}/results-{uuid.uuid4()}{parameters}"


@pytest.fixture(autouse=True)
def clients_are_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in this process; workers have the four seconds that all have."""
    monkeypatch.setattr("qworker.results.dynamodb_url._LONGEST_S", 60.0)


@pytest.fixture
def broker(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


def test_results_of_every_kind_come_back(shop_on: ShopOn, broker: str, moto_server: MotoServer) -> None:
    shop = shop_on(broker, url(moto_server, "?create_table=true"))
    worker = shop.worker()
    sums = [shop.task("add").delay(number, 1) for number in range(60)]
    failed = shop.task("boom").delay()

    # When the worker starts, or when the first results are to be stored and the table was out of reach before.
    wait_until(lambda: has_table(moto_server, shop.backend), "the table is there")
    assert [result.get(timeout=30) for result in sums] == list(range(1, 61))
    with pytest.raises(ValueError, match="bad thing"):
        failed.get(timeout=30)
    assert worker.stop() == 0
    assert SECRET not in worker.log
    assert KEY_ID not in worker.log


def test_a_missing_table_ends_the_start_with_its_name_and_region(
    shop_on: ShopOn, broker: str, moto_server: MotoServer
) -> None:
    where = url(moto_server)
    worker = shop_on(broker, where).worker(ready=False)

    assert worker.wait() == 4
    assert f"the DynamoDB table '{where.rpartition('/')[2]}' in us-east-1" in worker.log
    assert "does not exist" in worker.log
    assert SECRET not in worker.log


def test_a_table_that_is_away_loses_neither_tasks_nor_claims(shop_on: ShopOn, broker: str) -> None:
    with MotoServer() as server:
        shop = shop_on(broker, url(server, "?create_table=true"))
        worker = shop.worker()
        first = shop.task("add").delay(1, 1)
        wait_until(lambda: has_table(server, shop.backend), "the table is there")
        assert first.get(timeout=30) == 2
        server.freeze()
        results = [shop.task("noted").delay(str(number)) for number in range(4)]
        wait_until(lambda: len(shop.ran()) == 4, "all have run")
        worker.wait_log("cannot be reached: Read timeout")
        server.thaw()

        assert [result.get(timeout=30) for result in results] == [None] * 4
        watch = Stopwatch()
        assert worker.stop() == 0
        assert watch.s < 5
        assert len(shop.ran()) == 4
        assert shop.dead() == []


def test_a_table_that_hangs_keeps_no_start_from_being_called_off(shop_on: ShopOn, broker: str) -> None:
    with MotoServer() as server:
        where = url(server)
        server.freeze()
        worker = shop_on(broker, where).worker(ready=False)
        worker.wait_log(f"qworker {__version__}")
        wait_until(lambda: server_is_asked(server), "the worker waits for the table")
        assert worker.stop() == 0
        assert "starting nevertheless" not in worker.log, "it has ended before the look at the table did"
        server.thaw()


def has_table(server: MotoServer, where: str) -> bool:
    """Whether the table of this URL exists."""
    with closing(server.client_of("dynamodb")) as client:
        return where.rpartition("/")[2].partition("?")[0] in client.list_tables()["TableNames"]


def server_is_asked(server: MotoServer) -> bool:
    """Whether somebody is connected to it."""
    return any(
        one.laddr.port == int(server.place.rpartition(":")[2]) and one.status == psutil.CONN_ESTABLISHED
        for one in psutil.net_connections("tcp")
        if one.laddr
    )
