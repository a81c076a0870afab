"""Print how many no-op tasks per second one process publishes with a tool's own call: `enqueue.py TOOL COUNT`."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any


def publisher(tool: str) -> Callable[[int, int], Any]:
    """Return the call with which users of `tool` publish a no-op."""
    app = importlib.import_module(f"{tool}_app")
    if tool == "dramatiq":
        return app.noop.send
    if tool == "huey":
        return app.noop
    if tool == "rq":
        return lambda x, y: app.delay(app.noop, x, y)
    return app.noop.delay


def main() -> None:
    """Publish, and print the rate."""
    publish = publisher(sys.argv[1])
    count = int(sys.argv[2])
    publish(1, 2)  # connects
    begin = time.perf_counter()
    for number in range(count):
        publish(number, 2)
    print(count / (time.perf_counter() - begin))


if __name__ == "__main__":
    main()
