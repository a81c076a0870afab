"""A moto server for tests: AWS's own HTTP protocols (SQS, DynamoDB, S3, STS), in memory, on a free loopback port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from .redis_server import free_port
from .waiting import wait_until

#: What clients of the server may say they are: it believes everybody.
KEY_ID = "AKIAQWORKERTEST"
SECRET = "secret/of+the@test"
REGION = "eu-west-1"


class MotoServer:
    """One server process that belongs to the test: a context manager, which may be stopped and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="qworker-moto-")

    @property
    def endpoint(self) -> str:
        """Where every service answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def place(self) -> str:
        """`host:port`, as it stands in a URL of ours."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def client(self, service: str, region: str = REGION, **options: Any) -> Any:
        """A botocore client, for looking behind the scenes."""
        import boto3

        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            **options,
        )

    def start(self) -> MotoServer:
        """Start, and wait until it answers."""
        log = Path(self._folder.name) / "log"
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
        wait_until(self._answers, "the moto server answers", limit_s=60)
        return self

    def stop(self) -> None:
        """Kill it; what it held is gone."""
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
        with urllib.request.urlopen(request, timeout=10):
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
