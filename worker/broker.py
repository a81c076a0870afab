"""Opens the broker as the application's settings say: for the worker, or in a hurry to give back what it holds.

Made by `worker/run.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from ..transports import Transport, broker_options, lease_option, open_transport
from .giving_back import give_back

DEFAULT_LEASE_S: Final = 30.0
#: For each exchange, when there is no time to lose.
_HURRY_S: Final = 1.0


def longest_call_s(lease_s: float, deaf_timeout_s: float) -> float:
    """How long the consumer's thread may wait for one answer.

    A call that hangs must use up neither the time in which the lease has to be renewed nor that after which the thread
    itself is taken for one that hangs, which costs all running tasks.
    """
    return max(1.0, min(lease_s, deaf_timeout_s or lease_s) / 4)


class Broker:
    """`conf` are the application's settings, `queues` those that the worker consumes. Any thread."""

    def __init__(self, conf: dict[str, Any], queues: Sequence[str]) -> None:
        self._url = conf["broker_url"]
        self._queues = queues
        self._options = broker_options(conf)
        self.lease_s = lease_option(self._options, DEFAULT_LEASE_S)
        self._options.setdefault("socket_timeout", min(5.0, max(1.0, self.lease_s / 6)))
        most_s = longest_call_s(self.lease_s, conf["worker_deaf_timeout"])
        for name in ("socket_timeout", "socket_connect_timeout"):
            with suppress(KeyError, TypeError, ValueError):  # a value that is no number is refused by the adapter
                self._options[name] = min(float(self._options[name]), most_s)

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
