"""An outage on demand: wraps any transport and fails the calls that a test names.

A call that fails `before` was not carried out; one that fails `after` was, but its reply is lost. The caller sees the
same TransportError in both cases, as it would of a network.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..core.errors import TransportError
from ..transports import Transport


class FlakyTransport:
    """Passes everything on to `inner`, except the calls that shall fail. One thread at a time, as any transport."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._after: Counter[str] = Counter()
        self._down = False
        self._answers: dict[str, Any] = {}

    def answer(self, verb: str, reply: Any) -> None:
        """Let calls of `verb` do nothing and return `reply`, as a deaf connection does; None ends that."""
        self._answers[verb] = reply

    def fail_before(self, verb: str, times: int = 1) -> None:
        """Let the next `times` calls of `verb` fail without having been carried out."""
        self._before[verb] += times

    def fail_after(self, verb: str, times: int = 1) -> None:
        """Let the next `times` calls of `verb` fail after having been carried out."""
        self._after[verb] += times

    def go_down(self) -> None:
        """Let every call fail, without effect, until `come_back`."""
        self._down = True

    def come_back(self) -> None:
        """End the outage."""
        self._down = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found) or name in ("wake_fd", "close"):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            if self._down or self._take(self._before, name):
                raise TransportError(f"the test lets {name} fail before it is carried out")
            if self._answers.get(name) is not None:
                return self._answers[name]
            result = found(*args, **kwargs)
            if self._take(self._after, name):
                raise TransportError(f"the test loses the reply of {name}")
            return result

        return call

    def _take(self, planned: Counter[str], name: str) -> bool:
        if not planned[name]:
            return False
        planned[name] -= 1
        return True
