"""No secret is shown (P10): whole logs of workers and commands that really fail, in every format, at DEBUG."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from support.redis_server import RedisServer, free_port
from support.tls_front import tls_server
from support.waiting import wait_until
from support.worker import Worker

PASSWORD = "Tr0ub4dor&3/x?"
QUOTED = quote(PASSWORD, safe="")
KEY_ID = "AKIAQWORKERTESTKEY99"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE"
#: Every way in which one of them could be written.
SECRETS = (PASSWORD, QUOTED, "Tr0ub4dor", KEY_ID, SECRET_KEY, quote(SECRET_KEY, safe=""), "K7MDENG")

APPLICATION = """
import logging
from qworker import App

app = App("vault", **{settings})

@app.task
def tells():
    print(app.conf.broker_url)
    logging.getLogger("vault").warning("going to %s", app.conf.broker_url)
    raise RuntimeError("cannot reach " + app.conf.broker_url)
"""


def application(folder: Path, **settings: object) -> None:
    (folder / "vault.py").write_text(APPLICATION.replace("{settings}", repr(settings)))


def assert_no_secret(text: str) -> None:
    assert text, "nothing was said, so nothing was tested"
    assert [secret for secret in SECRETS if secret in text] == [], text


@pytest.fixture(scope="module")
def locked_redis() -> Iterator[RedisServer]:
    """It wants a password, and another one than ours."""
    with RedisServer("--requirepass", "another", password="another") as server:
        yield server


AWS = f"{KEY_ID}:{quote(SECRET_KEY, safe='')}"
CASES = {
    "redis, wrong password": ("redis://:{q}@127.0.0.1:{locked}/0", {}),
    "redis, wrong login": ("redis://someone:{q}@127.0.0.1:{locked}/0", {}),
    "redis, password as a parameter": ("redis://127.0.0.1:{locked}/0?password={q}", {}),
    "redis, nobody there": ("redis://:{q}@127.0.0.1:{closed}/0", {}),
    "redis, no number for a port": ("redis://:{q}@127.0.0.1:port/0", {}),
    "redis, password not quoted": ("redis://:{p}@127.0.0.1:{closed}/0", {}),
    "redis, no such parameter": ("redis://:{q}@127.0.0.1:{closed}/0?no_such=1", {}),
    "rediss, unknown authority": ("rediss://:{q}@localhost:{tls}/0", {}),
    "rediss, key's password": (
        "rediss://:{q}@localhost:{tls}/0?ssl_keyfile=/nowhere&ssl_certfile=/nowhere&ssl_password={q}",
        {},
    ),
    "sentinel, nobody there": (
        "sentinel://:{q}@127.0.0.1:{closed};sentinel://:{q}@127.0.0.1:{closed}",
        {"master_name": "m", "sentinel_kwargs": {"password": PASSWORD}},
    ),
    "sentinel, no master's name": ("sentinel://:{q}@127.0.0.1:{closed}", {}),
    "sqs, nobody there": (
        f"sqs://{AWS}@127.0.0.1:{{closed}}",
        {"region": "us-east-1", "is_secure": False},
    ),
    "sqs, no such option": (f"sqs://{AWS}@", {"region": "us-east-1", "no_such": 1}),
    "sqs, without an @": (f"sqs://{AWS}", {"region": "us-east-1"}),
    "sqs, keys of one queue": (
        "sqs://",
        {
            "region": "us-east-1",
            "predefined_queues": {
                "celery": {
                    "url": "http://127.0.0.1:{closed}/1/celery",
                    "access_key_id": KEY_ID,
                    "secret_access_key": SECRET_KEY,
                }
            },
        },
    ),
    "unknown kind of broker": ("ftp://someone:{q}@127.0.0.1/", {}),
    "amqp": ("amqp://someone:{q}@127.0.0.1//", {}),
}


@pytest.fixture(scope="module")
def words(locked_redis: RedisServer) -> Iterator[dict[str, object]]:
    with tls_server() as tls:
        yield {"q": QUOTED, "p": PASSWORD, "locked": locked_redis.port, "closed": free_port(), "tls": tls}


def filled(value: object, words: dict[str, object]) -> object:
    if isinstance(value, str):
        return value.format(**words)
    if isinstance(value, dict):
        return {key: filled(inner, words) for key, inner in value.items()}
    return value


@pytest.mark.parametrize("case", CASES)
def test_a_worker_that_cannot_reach_its_broker_tells_no_secret(
    tmp_path: Path, words: dict[str, object], case: str
) -> None:
    url, options = CASES[case]
    application(tmp_path, broker=filled(url, words), broker_transport_options=filled(options, words))
    form = ("text", "json", "logfmt")[list(CASES).index(case) % 3]
    with Worker(tmp_path, "-A", "vault", "-c", "1", "-l", "debug", "--log-format", form) as worker:
        wait_until(lambda: worker.process.poll() is not None or worker.log.count("attempt") >= 2, "it fails", 25)
        ended = worker.process.poll()
        if ended is None:
            worker.stop()
        assert_no_secret(worker.log)
        assert ended in (None, 3, 4, 69), "a mistake is no error inside qworker"


@pytest.mark.parametrize(
    "backend",
    [
        f"dynamodb://{AWS}@127.0.0.1:{{closed}}/results",
        f"dynamodb://{AWS}@us-east-1/results?no_such=1",
        "redis://:{q}@127.0.0.1:{locked}/1",
        "redis://:{q}@127.0.0.1:{closed}/1",
        "mongodb://someone:{q}@127.0.0.1/x",
    ],
)
def test_a_worker_that_cannot_reach_its_result_store_tells_no_secret(
    tmp_path: Path, words: dict[str, object], backend: str
) -> None:
    application(tmp_path, broker=f"sqlite:///{tmp_path}/q.db", backend=filled(backend, words))
    with Worker(tmp_path, "-A", "vault", "-c", "1", "-l", "debug") as worker:
        wait_until(lambda: worker.process.poll() is not None or "ready: " in worker.log, "it starts or not", 30)
        if worker.process.poll() is None:
            subprocess.run(
                [sys.executable, "-m", "qworker", "-A", "vault", "call", "vault.tells"],
                cwd=tmp_path,
                capture_output=True,
                timeout=30,
            )
            worker.wait_log("result", 30)
            worker.process.kill()
            worker.wait()
        assert_no_secret(worker.log)


@pytest.mark.parametrize("form", ["text", "json", "logfmt"])
def test_what_a_task_says_of_its_broker_is_shown_without_the_password(
    tmp_path: Path, locked_redis: RedisServer, form: str
) -> None:
    """The password is right here, and the task prints, logs and raises it."""
    with locked_redis.client() as client:
        client.flushall()
        client.execute_command("ACL", "SETUSER", "vault", "on", f">{PASSWORD}", "+@all", "~*", "&*")
    application(tmp_path, broker=f"redis://vault:{QUOTED}@127.0.0.1:{locked_redis.port}/0")
    with Worker(tmp_path, "-A", "vault", "-c", "1", "--log-format", form) as worker:
        worker.wait_ready()
        subprocess.run(
            [sys.executable, "-m", "qworker", "-A", "vault", "call", "vault.tells"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            timeout=30,
        )
        worker.wait_log("cannot reach")
        assert worker.stop() == 0
        assert_no_secret(worker.log)
        assert worker.log.count("redis://vault:**@127.0.0.1") >= 3
        if form == "json":
            assert all(json.loads(line) for line in worker.log.splitlines() if line.startswith("{"))


def test_an_application_that_fails_at_import_shows_its_source_without_the_password(tmp_path: Path) -> None:
    (tmp_path / "vault.py").write_text(
        f"from qworker import App\napp = App('vault', broker='redis://:{QUOTED}@h/0', no_such_setting=1)\n"
    )
    with Worker(tmp_path, "-A", "vault", "-c", "1") as worker:
        assert worker.wait() in (3, 4)
        assert "no_such_setting" in worker.log
        assert_no_secret(worker.log)


@pytest.mark.parametrize("command", ["report", "doctor", "queues", "call vault.tells", "-l debug queues"])
def test_commands_tell_no_secret(tmp_path: Path, locked_redis: RedisServer, command: str) -> None:
    application(
        tmp_path,
        broker=f"redis://:{QUOTED}@127.0.0.1:{locked_redis.port}/0",
        backend=f"dynamodb://{AWS}@127.0.0.1:{free_port()}/results",
        broker_transport_options={"sentinel_kwargs": {"password": PASSWORD}},
        redis_password=PASSWORD,
    )
    ended = subprocess.run(
        [sys.executable, "-m", "qworker", "-A", "vault", *command.split()],
        env=os.environ | {"AWS_SECRET_ACCESS_KEY": SECRET_KEY},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert_no_secret(ended.stdout + ended.stderr)
