"""A worker and its clients on a server that wants TLS, a client certificate and a login: everything at once."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from qworker import App

from support import Shop
from support.tls_front import FOLDER, tls_server
from support.waiting import wait_until
from support.worker import Worker

_APP = """
import ssl
from qworker import App

use = {{"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": {folder!r} + "/ca.pem",
       "ssl_certfile": {folder!r} + "/client.pem", "ssl_keyfile": {folder!r} + "/client.locked.key",
       "ssl_password": "open-sesame", "ssl_min_version": ssl.TLSVersion.TLSv1_2}}
app = App("safe", broker="{url}/0", backend="{url}/1", broker_use_ssl=use, redis_backend_use_ssl=use,
          broker_transport_options={{"socket_keepalive_options": {{4: 60}}}})


@app.task
def add(x, y):
    return x + y
"""


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_worker_takes_its_tls_from_the_application(tmp_path: Path, scheme: str) -> None:
    """What the settings say has to survive the way from the spawner to the master, as JSON."""
    with tls_server(wants_client_certificate=True) as port:
        source = _APP.format(folder=str(FOLDER), url=f"{scheme}://localhost:{port}")
        (tmp_path / "safe.py").write_text(source)
        names: dict[str, App] = {}
        exec(source, names)
        with Worker(tmp_path, "-A", "safe", "-c", "1") as worker, names["app"] as app:
            worker.wait_ready()
            result = app.send_task("safe.add", [2, 3])
            assert result.get(timeout=20) == 5
            worker.wait_log("succeeded")
            assert "open-sesame" not in worker.log
            assert worker.stop() == 0


def test_a_certificate_that_is_not_there_ends_the_worker_with_the_option_s_name(
    shop_on: Callable[[str, str], Shop],
) -> None:
    with tls_server() as port:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs=/nowhere/ca.pem"
        worker = shop_on(url, "disabled://").worker(ready=False)
        assert worker.wait() == 4
    assert "ssl_ca_certs=/nowhere/ca.pem: No such file or directory; correct the path" in worker.log


def test_an_authority_that_is_not_trusted_is_told_and_tried_again(shop_on: Callable[[str, str], Shop]) -> None:
    """It may be the server that is put right."""
    with tls_server() as port:
        worker = shop_on(f"rediss://localhost:{port}/0", "disabled://").worker(ready=False)
        worker.wait_log("set ssl_ca_certs to the file of the authority that has signed it", times=2)
        assert worker.process.poll() is None
        worker.process.terminate()
        wait_until(lambda: worker.process.poll() is not None, "the worker ends", 20)


def test_the_constants_of_ssl_are_numbers_by_then() -> None:
    """Otherwise the first test would prove nothing."""
    app = App("x", broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED})
    assert app.conf.as_plain_dict()["broker_use_ssl"] == {"ssl_cert_reqs": 2}
