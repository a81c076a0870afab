"""A moto server for tests: AWS's own HTTP protocols (SQS, DynamoDB, S3, STS), in memory, on a free loopback port.

moto keeps no time of its own and answers as AWS does; what it does not do (throttling, partial failures, lost answers)
tests make with a proxy or with botocore's Stubber.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

from .redis_server import free_port
from .waiting import wait_until

#: What clients of the server may say they are: it believes everybody.
KEY_ID: Final = "AKIAQWORKERTEST"
SECRET: Final = "secret/of+the@test"
REGION: Final = "us-east-1"
#: The two, as they stand in a URL.
LOGIN: Final = f"{KEY_ID}:{quote(SECRET, safe='')}"
_ACCOUNT: Final = "123456789012"


class MotoServer:
    """One server process that belongs to the test: a context manager, which may be stopped and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="qworker-moto-")

    @property
    def endpoint(self) -> str:
        """Where every service answers."""
        return f"http://{self.place}"

    @property
    def place(self) -> str:
        """`host:port`, as it stands in a URL of ours."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As a broker."""
        return f"sqs://{LOGIN}@{self.place}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def client_of(self, service: str, region: str = REGION) -> Any:
        """botocore's client, for looking behind the scenes."""
        from botocore.session import Session

        session = Session()
        session.set_credentials(KEY_ID, SECRET)
        return session.create_client(service, region_name=region, endpoint_url=self.endpoint)

    # ---- its life ----

    def start(self) -> MotoServer:
        """Start, and wait until it answers."""
        log = Path(self._folder.name) / "log"
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("moto_process.py"), str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
        wait_until(self._answers, "the moto server answers", limit_s=60)
        return self

    def stop(self) -> None:
        """Kill it; what it held is gone."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """Let it accept connections and answer nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def reset(self) -> None:
        """Forget every queue, table and bucket."""
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        with urllib.request.urlopen(request, timeout=20):
            pass

    def __enter__(self) -> MotoServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        self._folder.cleanup()

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, self._said()
        try:
            with urllib.request.urlopen(f"{self.endpoint}/moto-api/data.json", timeout=5):
                return True
        except OSError:
            return False

    def _said(self) -> str:
        return (Path(self._folder.name) / "log").read_text(errors="replace")[-2000:]

    # ---- its queues ----

    @cached_property
    def client(self) -> Any:
        """A client for SQS, shared by all that look."""
        return self.client_of("sqs")

    def queue(self, name: str, **attributes: Any) -> str:
        """Create a queue; returns its URL."""
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        made = self.client.create_queue(QueueName=name, Attributes={k: str(v) for k, v in attributes.items()})
        return str(made["QueueUrl"])

    def arn(self, name: str) -> str:
        return f"arn:aws:sqs:{REGION}:{_ACCOUNT}:{name}"

    def counts(self, name: str) -> tuple[int, int, int]:
        """About how many messages are visible, in flight, delayed; of moto these numbers are exact."""
        names = ["", "NotVisible", "Delayed"]
        wanted = [f"ApproximateNumberOfMessages{n}" for n in names]
        found = self.client.get_queue_attributes(QueueUrl=self._url_of(name), AttributeNames=wanted)["Attributes"]
        visible, hidden, delayed = (int(found[n]) for n in wanted)
        return visible, hidden, delayed

    def receive(self, name: str, *, most: int = 10, visible_s: int = 30, wait_s: int = 0) -> list[dict[str, Any]]:
        """Take messages, as another consumer would."""
        found = self.client.receive_message(
            QueueUrl=self._url_of(name),
            MaxNumberOfMessages=most,
            VisibilityTimeout=visible_s,
            WaitTimeSeconds=wait_s,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages: list[dict[str, Any]] = found.get("Messages", [])
        return messages

    def send(self, name: str, body: str, **more: Any) -> str:
        """Send a body as it is; returns the message's id."""
        sent = self.client.send_message(QueueUrl=self._url_of(name), MessageBody=body, **more)
        return str(sent["MessageId"])

    def _url_of(self, name: str) -> str:
        return f"{self.endpoint}/{_ACCOUNT}/{name}"


def create_table(client: Any, name: str, key: str = "id") -> None:
    """Create a table of DynamoDB with this partition key."""
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
