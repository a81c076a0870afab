"""How long a worker waits for its Redis, whatever its options say."""

from __future__ import annotations

import pytest

from qworker.core.errors import TransportError
from qworker.transports import open_transport

from support import RedisServer


@pytest.mark.parametrize("where", ["options", "url"])
def test_a_worker_waits_no_longer_than_a_quarter_of_its_lease(where: str) -> None:
    with RedisServer() as server:
        options = {"socket_timeout": 120} if where == "options" else {}
        url = server.url if where == "options" else f"{server.url}?socket_timeout=120&socket_connect_timeout=120"
        worker = open_transport(url, options=options, owner="w/1", lease_s=4)
        worker.connect()
        server.freeze()
        try:
            with pytest.raises(TransportError, match="did not answer within 1 s"):
                worker.maintain()
        finally:
            server.thaw()
        worker.close()
