"""Opens the broker as the application's settings say: for the worker, or in a hurry to give back what it holds.

Made by `worker/run.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..transports import Transport, broker_options, lease_option, open_transport
from .giving_back import give_back

DEFAULT_LEASE_S: Final = 30.0
#: For each exchange, when there is no time to lose.
_HURRY_S: Final = 1.0


class Broker:
    """`conf` are the application's settings, `queues` those that the worker consumes. Any thread."""

    def __init__(self, conf: dict[str, Any], queues: Sequence[str]) -> None:
        self._url = conf["broker_url"]
        self._queues = queues
        self._options = broker_options(conf)
        self.lease_s = lease_option(self._options, DEFAULT_LEASE_S)
        # A call that hangs must not use up the time in which the lease has to be renewed.
        self._options.setdefault("socket_timeout", min(5.0, max(1.0, self.lease_s / 6)))

    def open(self, owner: str) -> Transport:
        """A transport for this owner, not connected. Raises ConfigError."""
        return self._open(owner, self._options)

    def give_back(self, owner: str) -> list[str]:
        """Have the broker take back what this owner holds (`give_back`), with tight time-outs; returns task ids.

        Raises TransportError, ConfigError.
        """
        hurry = {name: _HURRY_S for name in ("socket_timeout", "socket_connect_timeout") if name in self._options}
        return give_back(self._open(owner, self._options | hurry))

    def _open(self, owner: str, options: dict[str, Any]) -> Transport:
        return open_transport(self._url, options=options, owner=owner, lease_s=self.lease_s, queues=self._queues)
