"""Asking a worker's endpoint, politely and otherwise."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from qworker import monitor
from qworker.monitor import Place, find_sockets

from .redis_server import free_port as free_port

#: Values by name and labels.
Metrics = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def socket_of(node: str | None = None) -> Place:
    """The socket of the one worker that runs here."""
    (found,) = find_sockets(node)
    return Place(path=found.path)


def get(place: Place, path: str, *, token: str = "") -> tuple[int, bytes]:
    """GET `path`, with more patience than a health check has."""
    return monitor.get(place, path, token=token, timeout_s=30.0)


def status_of(place: Place) -> dict[str, Any]:
    code, body = get(place, "/status")
    assert code == 200
    answer: dict[str, Any] = json.loads(body)
    return answer


def metrics_of(place: Place) -> Metrics:
    """Every sample by name and labels, as Prometheus reads them."""
    code, body = get(place, "/metrics")
    assert code == 200
    families = text_string_to_metric_families(body.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.get((name, tuple(sorted(labels.items()))))


def raw(place: Place, data: bytes, *, timeout_s: float = 30.0) -> bytes:
    """Send these bytes and read until the end."""
    with connected(place, timeout_s) as link:
        answer = bytearray()
        try:
            link.sendall(data)
            while piece := link.recv(65536):
                answer += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
        return bytes(answer)


@contextmanager
def connected(place: Place, timeout_s: float = 30.0) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX if place.path else socket.AF_INET) as link:
        link.settimeout(timeout_s)
        link.connect(place.path or (place.host, place.port))
        yield link


def qworker(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "qworker", *arguments],
        cwd=folder,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
