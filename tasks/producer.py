"""A producer's connections: one transport per thread, made when a thread first publishes, and anew after a fork.

Owned by an App. A transport belongs to one thread at a time, and a lock around a shared one would let one thread's slow
broker call hold up all others. A forked child leaves what it has inherited alone: the connection is its parent's.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..core.errors import TransportError

if TYPE_CHECKING:
    from ..transports import Envelope, Transport


_T = TypeVar("_T")

# Longer than this unused, a connection may have been closed at the other end, and a message sent over it is neither
# known to be queued nor known not to be. A new connection costs less than that doubt.
_STALE_S: Final = 15.0
#: Celery's defaults for what a policy does not say.
_POLICY: Final = {"max_retries": 3, "interval_start": 0.0, "interval_step": 0.2, "interval_max": 1.0}


_Policy = Callable[[], "Mapping[str, Any] | None"]


class _Line:
    """One thread's connection, and when it was last used."""

    __slots__ = ("_fresh_until", "transport")

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._fresh_until = 0.0

    def call(self, verb: Callable[[Transport], list[_T]]) -> list[_T]:
        """Call a verb, on a new connection unless this one has been used lately.

        Raises TransportError; its `nothing_sent` says whether another try can do no harm.
        """
        self._refresh()
        try:
            return verb(self.transport)
        except TransportError:
            self._fresh_until = 0.0
            raise

    def _refresh(self) -> None:
        now = time.monotonic()
        if now > self._fresh_until:
            try:
                self.transport.connect()
            except TransportError as error:
                error.nothing_sent = True
                raise
        self._fresh_until = now + _STALE_S


class Producer:
    """Publishes envelopes. Any thread, any process.

    `open_transport` makes a transport that is not yet connected. `policy` returns a retry policy with Celery's keys
    (`max_retries`, None = for ever; `interval_start`, `interval_step`, `interval_max` in seconds), or None for none.
    """

    def __init__(
        self,
        open_transport: Callable[[], Transport],
        policy: _Policy = dict,
    ) -> None:
        self._open = open_transport
        self._policy = policy
        self._reset()

    def publish(self, envelopes: Sequence[Envelope], policy: _Policy | None = None) -> list[Envelope]:
        """Put `envelopes` on the broker; return those whose lock another message has. Raises TransportError.

        What has certainly not been sent is tried again, by `policy` or the producer's own. Anything else is not: no
        message must be sent twice.
        """
        doubt = "whether the message was queued is not known"
        return self._call(lambda transport: transport.publish(envelopes), doubt, policy or self._policy)

    def discard_delayed(self, task_ids: Sequence[str]) -> list[str]:
        """Delete the delayed messages of these tasks; return the ids of which there were any. Raises TransportError."""
        return self._call(lambda transport: transport.discard_delayed(task_ids), "some may be gone", self._policy)

    def close(self) -> None:
        """Close every thread's connection. No thread may be publishing; a later publish connects again."""
        if os.getpid() != self._pid:
            self._leave_to_parent()
        with self._lock:
            lines = list(self._by_thread.values())
            self._by_thread.clear()
        for line in lines:
            line.transport.close()

    def _call(self, verb: Callable[[Transport], list[_T]], doubt: str, policy: _Policy) -> list[_T]:
        if os.getpid() != self._pid:
            self._leave_to_parent()
        line = self._by_thread.get(threading.get_ident()) or self._new_line()
        try:
            return line.call(verb)
        except TransportError as error:
            return self._call_again(line, verb, error, doubt, policy)

    def _call_again(
        self, line: _Line, verb: Callable[[Transport], list[_T]], error: TransportError, doubt: str, policy: _Policy
    ) -> list[_T]:
        for wait_s in _waits(policy()):
            if not error.nothing_sent:
                break
            time.sleep(wait_s)
            try:
                return line.call(verb)
            except TransportError as again:
                error = again
        if error.nothing_sent:
            raise error
        raise TransportError(f"{error}; {doubt}") from error

    def _new_line(self) -> _Line:
        line = _Line(self._open())
        with self._lock:
            self._forget_ended_threads()
            self._by_thread[threading.get_ident()] = line
        return line

    def _forget_ended_threads(self) -> None:
        # An identifier may be used again by a new thread, which then takes over the connection: harmless.
        alive = {thread.ident for thread in threading.enumerate()}
        for ident in [ident for ident in self._by_thread if ident not in alive]:
            self._by_thread.pop(ident).transport.close()

    def _leave_to_parent(self) -> None:
        # Kept, not dropped: closing an inherited SQLite or TLS connection could disturb the parent's.
        self._inherited.append(self._by_thread)
        self._reset(self._inherited)

    def _reset(self, inherited: list[dict[int, _Line]] | None = None) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # a new one: the parent's may have been held at the fork
        self._by_thread: dict[int, _Line] = {}
        self._inherited = [] if inherited is None else inherited


def _waits(policy: Mapping[str, Any] | None) -> Iterator[float]:
    """How long to wait before each further try."""
    if policy is None:
        return
    policy = {**_POLICY, **policy}
    most, wait_s, tries = policy["max_retries"], float(policy["interval_start"] or 0), 0
    while most is None or tries < most:
        yield min(wait_s, policy["interval_max"])
        wait_s += policy["interval_step"]
        tries += 1
