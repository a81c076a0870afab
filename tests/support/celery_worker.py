"""A stock Celery worker that knows `shop.add`, beside ours on one queue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .waiting import wait_until


@contextmanager
def celery_worker(folder: Path, broker: str, backend: str, **settings: Any) -> Iterator[None]:
    """Run one on the queue `hipri`, with one child, its log in `celery.log`; stopped warm at the block's end."""
    (folder / "stock.py").write_text(
        "import celery\n"
        f"app = celery.Celery('stock', broker={broker!r}, backend={backend!r})\n"
        f"app.conf.update(task_default_queue='hipri', **{settings!r})\n"
        "@app.task(name='shop.add')\n"
        "def add(x, y=0):\n"
        "    return x + y\n"
    )
    command = [sys.executable, "-m", "celery", "-A", "stock", "worker", "-c", "1", "-Q", "hipri", "-l", "INFO"]
    with (folder / "celery.log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ)
        try:
            yield
        finally:
            worker.send_signal(signal.SIGTERM)
            try:
                wait_until(lambda: worker.poll() is not None, "the Celery worker has stopped", 30)
            finally:
                worker.kill()
                worker.wait()
