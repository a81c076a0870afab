"""The socket that systemd would listen on, held by a test: every datagram of the worker, with its time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from .waiting import wait_until


class Heard(NamedTuple):
    """One datagram. `at` is on the monotonic clock."""

    at: float
    fields: dict[str, str]


class NotifySocket:
    """A datagram socket by a path or, with `abstract`, by a name that no file has. A context manager."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self.address = f"@qworker-test-{os.getpid()}-{time.monotonic_ns()}" if abstract else str(folder / "notify.sock")
        self.heard: list[Heard] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:] if abstract else self.address)
        self._socket.settimeout(0.2)
        self._is_done = False
        self._thread = threading.Thread(target=self._listen)

    def env(self, watchdog_s: float | None = None) -> dict[str, str]:
        """What systemd gives to a service."""
        watchdog = {} if watchdog_s is None else {"WATCHDOG_USEC": str(round(watchdog_s * 1e6))}
        return {"NOTIFY_SOCKET": self.address} | watchdog

    def values(self, name: str) -> list[str]:
        """Every value of this field, in the order of arrival."""
        return [fields[name] for _, fields in list(self.heard) if name in fields]

    def wait(
        self, name: str, value: str | Callable[[str], bool] = "1", *, after: int = 0, limit_s: float = 20.0
    ) -> Heard:
        """Wait for a datagram with this field and value, the first one after the first `after` datagrams."""
        fits = value if callable(value) else value.__eq__

        def find() -> Heard | None:
            return next((h for h in self.heard[after:] if name in h.fields and fits(h.fields[name])), None)

        try:
            found = wait_until(find, f"{name} from the worker", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; heard: {[h.fields for h in self.heard]}") from None
        assert found is not None
        return found

    def _listen(self) -> None:
        while not self._is_done:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            pairs = (line.partition("=") for line in data.decode().split("\n"))
            self.heard.append(Heard(time.monotonic(), {name: value for name, _, value in pairs}))

    def __enter__(self) -> NotifySocket:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._is_done = True
        self._thread.join()
        self._socket.close()
