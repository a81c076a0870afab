"""qworker on SQS, counted at the HTTP level: `python -m bench.sqs [TASKS]`. One line per case.

The emulator answers each request after 15 ms, as AWS does within a region. Requests are counted there, so the costs do
not depend on this machine; the speed does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from qworker import App
from qworker.transports import open_transport

LATENCY_MS = 15
_APP = """
import os, time
from qworker import App
app = App("app", broker=os.environ["BENCH_BROKER"], task_default_queue="bench")

@app.task
def noop(n: int) -> None: ...

@app.task
def works(ms: float) -> None:
    time.sleep(ms / 1000)
"""


class Bench:
    """One emulator, one folder, one queue."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"sqs://key:secret@127.0.0.1:{self.port}"
        self.folder = tempfile.TemporaryDirectory(prefix="qworker-bench-")
        Path(self.folder.name, "app.py").write_text(_APP)
        self.emulator = subprocess.Popen([sys.executable, "-m", "bench.sqs_emulator", str(self.port), str(LATENCY_MS)])
        self.app = App("bench", broker=self.url, task_create_missing_queues=True)
        self.transport = open_transport(self.url, options={"create_missing_queues": True})
        while True:
            try:
                self.counts()
                break
            except OSError:
                time.sleep(0.05)

    def counts(self) -> dict[str, int]:
        """Requests of each action so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as answer:
            counted: dict[str, int] = json.load(answer)
        return counted

    def publish(self, task: str, count: int, argument: Any) -> None:
        """So many calls of a task."""
        from qworker.tasks.publishing import prepare

        made = [prepare(self.app, f"app.{task}", [argument], queue="bench").envelope for _ in range(count)]
        for at in range(0, count, 1000):
            self.transport.publish(made[at : at + 1000])

    def worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one."""
        return subprocess.Popen(
            [sys.executable, "-m", "qworker", "-A", "app", "-Q", "bench", "-l", "WARNING", "--quiet", *arguments],
            cwd=self.folder.name,
            env=os.environ | {"BENCH_BROKER": self.url},
            stderr=subprocess.DEVNULL,
        )

    def drain(self, count: int, *arguments: str) -> tuple[float, dict[str, int], float]:
        """Seconds from the first receive to the last delete, requests in that time, and the worker's CPU seconds."""
        before = self.counts()
        worker = self.worker(*arguments)
        while self.received(before) == 0:
            time.sleep(0.002)
        started = time.monotonic()
        while self.left():
            time.sleep(0.02)
        took_s = time.monotonic() - started
        after = self.counts()
        cpu_s = sum(p.cpu_times().user + p.cpu_times().system for p in [psutil.Process(worker.pid)])
        worker.send_signal(signal.SIGTERM)
        worker.wait(10)
        return took_s, {name: after[name] - before.get(name, 0) for name in after}, cpu_s

    def received(self, before: dict[str, int]) -> int:
        """Polls since then."""
        return self.counts().get("ReceiveMessage", 0) - before.get("ReceiveMessage", 0)

    def left(self) -> int:
        """What is visible or in flight, asked for without a request of SQS's."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/left", timeout=5) as answer:
            return int(json.load(answer))

    def close(self) -> None:
        """End the emulator."""
        self.transport.close()
        self.emulator.kill()
        self.emulator.wait()
        self.folder.cleanup()


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    bench = Bench()
    try:
        for title, task, argument, total in (
            ("no-op", "noop", 1, count),
            ("5 ms", "works", 5, count // 5),
            ("50 ms", "works", 50, count // 50),
        ):
            bench.publish(task, total, argument)
            took_s, requests, cpu_s = bench.drain(total, "-c", "4")
            ours = {k: v for k, v in requests.items() if k in _WORK and v}
            each = sum(ours.values()) / total
            print(
                f"{title:>6} tasks, -c 4: {total / took_s:7.0f} tasks/s, {each:.3f} requests per task {ours}, "
                f"master {cpu_s:.1f} s CPU"
            )
        worker = bench.worker("-c", "1")
        time.sleep(3)
        before = bench.counts()
        time.sleep(30)
        after = bench.counts()
        idle = sum(after.values()) - sum(before.values())
        print(f"  idle worker: {idle * 2} requests per minute")
        worker.send_signal(signal.SIGTERM)
        started = time.monotonic()
        worker.wait(10)
        print(f"   idle stop: {time.monotonic() - started:.2f} s")
    finally:
        bench.close()


_WORK = ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch", "SendMessageBatch")

if __name__ == "__main__":
    main()
