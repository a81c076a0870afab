"""A real SQS over HTTP for tests: moto's server, started by the test on a free loopback port.

moto keeps no time of its own and answers as AWS does; what it does not do (throttling, partial failures, lost answers)
tests make with a proxy or with botocore's Stubber.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from .redis_server import free_port
from .waiting import wait_until

#: Whatever moto is told, it believes.
KEY, SECRET, REGION = "AKIDEXAMPLE", "wJalr/UtnFEMI+K7MDENG", "us-east-1"


class SqsServer:
    """One moto server. A context manager."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As a broker."""
        return f"sqs://{KEY}:{SECRET.replace('/', '%2F').replace('+', '%2B')}@127.0.0.1:{self.port}"

    @property
    def client(self) -> Any:
        """botocore's client, for looking behind the scenes."""
        if self._client is None:
            self._client = self.client_of("sqs")
        return self._client

    def client_of(self, service: str) -> Any:
        from botocore.session import Session

        session = Session()
        session.set_credentials(KEY, SECRET)
        return session.create_client(service, region_name=REGION, endpoint_url=self.endpoint)

    def reset(self) -> None:
        """Forget every queue."""
        urllib.request.urlopen(f"{self.endpoint}/moto-api/reset", data=b"", timeout=10).close()

    def queue(self, name: str, **attributes: Any) -> str:
        """Create a queue; returns its URL."""
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        made = self.client.create_queue(QueueName=name, Attributes={k: str(v) for k, v in attributes.items()})
        return str(made["QueueUrl"])

    def arn(self, name: str) -> str:
        return f"arn:aws:sqs:{REGION}:123456789012:{name}"

    def counts(self, name: str) -> tuple[int, int, int]:
        """About how many messages are visible, in flight, delayed; of moto these numbers are exact."""
        url = f"{self.endpoint}/123456789012/{name}"
        names = ["", "NotVisible", "Delayed"]
        wanted = [f"ApproximateNumberOfMessages{n}" for n in names]
        found = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
        visible, hidden, delayed = (int(found[n]) for n in wanted)
        return visible, hidden, delayed

    def receive(self, name: str, *, most: int = 10, visible_s: int = 30, wait_s: int = 0) -> list[dict[str, Any]]:
        """Take messages, as another consumer would."""
        found = self.client.receive_message(
            QueueUrl=f"{self.endpoint}/123456789012/{name}",
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
        sent = self.client.send_message(QueueUrl=f"{self.endpoint}/123456789012/{name}", MessageBody=body, **more)
        return str(sent["MessageId"])

    def start(self) -> SqsServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        wait_until(self._answers, "moto answers", 30.0)
        return self

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def signal(self, number: int) -> None:
        """Freeze it, for example."""
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, "moto ended at once"
        try:
            urllib.request.urlopen(f"{self.endpoint}/moto-api/data.json", timeout=1).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> SqsServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def names_of(messages: Sequence[dict[str, Any]]) -> list[str]:
    """The ids of messages that were received."""
    return [message["MessageId"] for message in messages]
