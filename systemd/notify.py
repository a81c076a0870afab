"""sd_notify(3) by hand: datagrams of `NAME=value` lines to the socket that systemd names in the environment.

`take` is called once, by the command line, before any process is forked: it takes systemd's variables out of the
environment, so that neither children nor what tasks start can speak for the worker. (An image that replaces this one
has them again: it is given the environment that the process was started with.)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

_NAMES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The way to systemd. `watchdog_s`: it must hear WATCHDOG=1 at least this often; None = it does not listen for it.

    One thread. Nothing here waits or raises: a service must not depend on whether somebody listens.
    """

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None

    def send(self, fields: Mapping[str, object]) -> bool:
        """Send one datagram; False when it did not arrive and may be sent again later."""
        lines = (f"{name}={' '.join(str(value).splitlines())}" for name, value in fields.items())
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError:  # nobody there (yet), or more waits there than may
            return False
        return True

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def take() -> Notifier | None:
    """Take systemd's variables out of the environment; None when this process has nobody to notify."""
    taken = {name: value for name in _NAMES if (value := os.environ.pop(name, None)) is not None}
    address = taken.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):  # systemd has other kinds of address, for virtual machines only
        return None
    return Notifier(address, _watchdog_s(taken))


def _watchdog_s(variables: Mapping[str, str]) -> float | None:
    """The watchdog's time, if it watches this process (sd_watchdog_enabled(3))."""
    try:
        usec, pid = int(variables.get("WATCHDOG_USEC", "0")), int(variables.get("WATCHDOG_PID", "0"))
    except ValueError:
        return None
    return usec / 1e6 if usec > 0 and pid in (0, os.getpid()) else None
