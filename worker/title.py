"""The master's process title: phase, busy children of all, node. Two threads know the parts, so both may write it.

The main thread tells the phase; the consumer thread the load, at most once a second while something is in flight and
not at all while nothing is, so that an idle worker sleeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ..pool import set_title

#: The load is written at most so often.
EVERY_S: Final = 1.0


class Title:
    """Each word has one writer; whoever writes last shows both."""

    def __init__(self, node: str = "", show: Callable[[str], None] = set_title) -> None:
        self._node = f" {node}" if node else ""
        self._show = show
        self._phase = "starting"
        self._load = ""
        self._shown_at = -math.inf
        #: When to call `tend` although nothing is in flight.
        self.next_at = -math.inf

    def phase(self, phase: str) -> None:
        """The worker has come into another phase. The main thread."""
        self._phase = phase
        self._write()

    def tend(self, now: float, has_work: bool, load: Callable[[], tuple[int, int]]) -> None:
        """Show the `load`, busy and all children, if it is time to. The consumer's thread, on every turn."""
        if now < (self._shown_at + EVERY_S if has_work else self.next_at):
            return
        busy, total = load()
        text = f" {busy}/{total}"
        if text != self._load:
            self._load = text
            self._write()
        self._shown_at = now
        self.next_at = now + EVERY_S if busy else math.inf

    def is_outdated(self) -> None:
        """There are more or fewer children. The consumer's thread."""
        self.next_at = min(self.next_at, self._shown_at + EVERY_S)

    def _write(self) -> None:
        shown = ""
        while (text := self._text()) != shown:  # again where the other thread has changed its word meanwhile
            self._show(text)
            shown = text

    def _text(self) -> str:
        return f"master {self._phase}{self._load}{self._node}"
