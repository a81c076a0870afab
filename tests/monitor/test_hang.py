"""A consumer thread that hangs: liveness says so, and the image that replaces the process listens at the same places.

The hang is planted by a `sitecustomize` module: no input brings it about.
"""

from __future__ import annotations

import os

import pytest

from qworker.monitor import Place

from support import Shop, wait_until
from support.asking import free_port, get, socket_of

_PLANT = """
import time
from pathlib import Path
from qworker.worker.consumer import Consumer

turn, mark = Consumer.turn, Path(__file__).with_name("hang")


def hanging_turn(self):
    if mark.exists():
        mark.unlink()
        time.sleep(1000)
    turn(self)


Consumer.turn = hanging_turn
"""


@pytest.mark.timeout(120)
def test_a_consumer_that_hangs_is_not_alive_and_its_successor_is(shop: Shop) -> None:
    plants = shop.folder / "plants"
    plants.mkdir()
    (plants / "sitecustomize.py").write_text(_PLANT)
    shop.write((shop.folder / "shop.py").read_text() + "\napp.conf.worker_deaf_timeout = 16.0\n")
    path = os.pathsep.join([str(plants), *filter(None, [os.environ.get("PYTHONPATH")])])
    port = free_port()
    worker = shop.worker("-c", "1", "-Q", "hipri", "--http", f"127.0.0.1:{port}", env={"PYTHONPATH": path})
    places = [socket_of(), Place(host="127.0.0.1", port=port)]
    assert [get(place, "/livez")[0] for place in places] == [200, 200]
    (plants / "hang").touch()
    wait_until(lambda: get(places[0], "/livez")[0] == 503, "it is not alive", 40.0)
    worker.wait_log("ready: 1 children", 60.0, times=2)
    # The line stands in the log a moment before the page says so.
    wait_until(lambda: [get(place, "/readyz")[0] for place in places] == [200, 200], "it is ready at both places")
    assert worker.stop() == 0
    assert not os.path.exists(places[0].path)
