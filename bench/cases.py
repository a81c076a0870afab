"""The measurements. Each starts a fresh worker on an empty server and returns plain numbers in a dict."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .server import RESULT_DB, Server
from .tools import APPS, Command, Tool
from .tree import Tree

Figures = dict[str, float]

START_LIMIT_S = 30.0
DRAIN_LIMIT_S = 120.0
PROBE_LIMIT_S = 6.0  # dramatiq polls: its 200 probes would take a minute
FILL_BATCH = 1000


def drain(server: Server, tool: Tool, task: str, count: int) -> Figures:
    """Fill the queue, start the worker, and measure from the first taken message to the last settled one."""
    conn = server.connect()
    fill(conn, tool, task, count)
    with worker(server, tool) as tree:
        wait_until(lambda: tool.left(conn) < count, START_LIMIT_S, tree, "took no message")
        begin, cpu_s, redis_s, left = time.monotonic(), tree.cpu_s(), server.cpu_s(), tool.left(conn)
        wait_until(lambda: tool.left(conn) == 0, DRAIN_LIMIT_S, tree, "did not empty the queue")
        took_s, cpu_s, redis_s = time.monotonic() - begin, tree.cpu_s() - cpu_s, server.cpu_s() - redis_s
    if task == "answer" and server.connect(RESULT_DB).dbsize() < count:
        raise tree.failure(f"stored {server.connect(RESULT_DB).dbsize()} results for {count} tasks")
    return {"rate": left / took_s, "cpu_us": cpu_s / left * 1e6, "redis_us": redis_s / left * 1e6}


def life(server: Server, tool: Tool, repeats: int, probes: int) -> Figures:
    """Start a worker (exec → first task), let it idle (memory, latency), stop it (TERM → gone)."""
    conn = server.connect()
    conn.flushall()
    messages = list(tool.messages("probe", probes))  # made now, while no worker takes the sample away
    starts, stops = [], []
    figures: Figures = {}
    for number in range(repeats):
        fill(conn, tool, "probe", 1)
        with worker(server, tool) as tree:
            starts.append(next_reply(conn, tree) - tree.started_at)
            wait_until(lambda: tool.left(conn) == 0, START_LIMIT_S, tree, "did not settle the first message")
            if number == 0:
                figures |= idle(conn, tree, messages)
            time.sleep(0.3)  # idle, not "just finished", is what is stopped
            stops.append(tree.stop())
    return figures | {"start_s": statistics.median(starts), "stop_s": statistics.median(stops)}


def idle(conn: Any, tree: Tree, messages: list[list[Command]]) -> Figures:
    """Measure memory and then the way from publish to start, one message at a time."""
    time.sleep(1.0)
    figures = {"pss_mb": tree.pss_mb()}
    waits = []
    deadline = time.monotonic() + PROBE_LIMIT_S
    for commands in messages:
        time.sleep(random.uniform(0.010, 0.020))
        published = time.monotonic()
        send(conn, [commands])
        waits.append((next_reply(conn, tree) - published) * 1e3)
        if time.monotonic() > deadline:
            break
    cuts = statistics.quantiles(waits[2:], n=20)  # the first ones open connections
    return figures | {"p50_ms": cuts[9], "p95_ms": cuts[18]}


def enqueue(server: Server, tool: Tool, count: int) -> Figures:
    """Measure the tool's own publishing call, in one fresh process."""
    server.connect().flushall()
    command = [sys.executable, "enqueue.py", tool.name, str(count)]
    done = subprocess.run(command, cwd=APPS, env=environment(server, tool), capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return {"enqueue": float(done.stdout)}


@contextmanager
def worker(server: Server, tool: Tool) -> Iterator[Tree]:
    """Start the tool's worker in the folder of the apps; stop it at the end."""
    env = environment(server, tool)
    with tempfile.TemporaryDirectory(prefix="bench-") as logs, Tree(tool.argv, env, APPS, Path(logs) / "log") as tree:
        yield tree


def environment(server: Server, tool: Tool) -> dict[str, str]:
    """Return the environment of a worker or publisher: ours, where Redis is, and the tool's own settings."""
    return os.environ | {"BENCH_BROKER": server.url(0), "BENCH_RESULTS": server.url(RESULT_DB)} | tool.env


def fill(conn: Any, tool: Tool, task: str, count: int) -> None:
    """Empty the server and put `count` messages of `task` on the tool's queue."""
    conn.flushall()
    messages = tool.messages(task, count)
    while batch := list(itertools.islice(messages, FILL_BATCH)):
        send(conn, batch)


def send(conn: Any, messages: list[list[Command]]) -> None:
    """Publish all messages in one round trip."""
    pipe = conn.pipeline(transaction=False)
    for commands in messages:
        for command in commands:
            pipe.execute_command(*command)
    pipe.execute()


def next_reply(conn: Any, tree: Tree) -> float:
    """Wait for the next probe and return the moment at which it started."""
    reply = conn.blpop("bench:reply", timeout=START_LIMIT_S)
    if reply is None:
        raise tree.failure("ran no probe")
    return float(reply[1])


def wait_until(is_done: Callable[[], bool], limit_s: float, tree: Tree, else_it: str) -> None:
    """Ask every 5 ms; raise with the worker's log when the limit passes or the worker leaves."""
    deadline = time.monotonic() + limit_s
    while not is_done():
        if tree.popen.poll() is not None:
            raise tree.failure(f"left with status {tree.popen.returncode}")
        if time.monotonic() > deadline:
            raise tree.failure(else_it)
        time.sleep(0.005)
