"""`print` and `sys.stderr` as log lines: what user code writes there gets a time, a process and its task.

Called by the spawner once the settings are known; children inherit it. Only Python's `sys.stdout` and `sys.stderr` are
replaced, not the descriptors 1 and 2: programs that a task starts write where they always did.

Text is collected until its line ends; what a task leaves without an end is a line when the task ends (`flush_lines`).
Of a line that is written over itself (`\\r`, progress bars) the last state counts.
"""

from __future__ import annotations

import codecs
import io
import logging
import sys
import threading
from typing import Any, Final, TextIO

from . import log_events, logs

logger = logging.getLogger("qworker.redirected")

#: A line without an end is cut here.
_LONGEST: Final = 64 * 1024


def redirect(level: int) -> None:
    """Turn what is written to `sys.stdout` and `sys.stderr` into lines of this level, until `restore`."""
    restore()
    sys.stdout, sys.stderr = _Redirected(sys.stdout, level, "stdout"), _Redirected(sys.stderr, level, "stderr")


def restore() -> None:
    """Take `redirect` back."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Redirected):
            stream.flush_lines()
            setattr(sys, name, stream.original)


def flush_lines() -> None:
    """Log what was written without the end of a line. Cheap when there is nothing."""
    for stream in (sys.stdout, sys.stderr):
        if type(stream) is _Redirected:
            stream.flush_lines()


class _Redirected(io.TextIOBase):
    """Stands for one of the streams. Any thread; each collects its own line."""

    def __init__(self, original: TextIO, level: int, source: str) -> None:
        self.original = original
        self._level = level
        self._source = source
        self._begun: dict[int, str] = {}  # thread → what has no end yet
        self._is_logging = threading.local()
        self._bytes = _Bytes(self)

    # What TextIOBase has as read-only properties that subclasses define.
    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    mode = "w"

    @property
    def name(self) -> str:
        """As the original's."""
        return f"<{self._source}>"

    @property
    def buffer(self) -> Any:
        """For those who write bytes."""
        return self._bytes

    def write(self, text: str) -> int:
        """Take text; when it ends a line it is logged, several lines at once as one event.

        `print` writes the end of its last line by itself, so lines in its middle end nothing.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if getattr(self._is_logging, "now", False):
            # The log itself, or a handler of the user's, writes here: it would never come to an end.
            return self.original.write(text)
        thread = threading.get_ident()
        begun = self._begun.pop(thread, "") + text
        if begun.endswith("\n") or len(begun) > _LONGEST:
            self._log(begun)
        elif begun:
            self._begun[thread] = begun
        return len(text)

    def flush_lines(self) -> None:
        """Log every line that has no end yet."""
        while self._begun:
            self._log(self._begun.popitem()[1])

    def flush(self) -> None:
        """Nothing: a line is logged when it is complete, and a progress bar flushes ten times a second."""

    def isatty(self) -> bool:
        """Nobody looks at it: no colours, no questions."""
        return False

    def fileno(self) -> int:
        """The original's: programs are started with it."""
        return self.original.fileno()

    def writable(self) -> bool:
        """Yes."""
        return True

    def reconfigure(self, **_options: Any) -> None:
        """Nothing that could be said about encodings or buffers matters to a log."""

    def close(self) -> None:
        """It stays: whoever prints next must not fail."""

    def _log(self, text: str) -> None:
        text = "\n".join(line.rstrip().rpartition("\r")[2] for line in text.split("\n")).strip("\n")
        if not text.strip():
            return
        self._is_logging.now = True
        try:
            logs.event(logger, self._level, log_events.PRINTED, text=text, stream=self._source)
        finally:
            self._is_logging.now = False


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes become text, also when a character comes in two pieces."""

    def __init__(self, text: _Redirected) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: Any) -> int:
        """Take bytes."""
        taken = bytes(data)
        self._text.write(self._decoder.decode(taken))
        return len(taken)

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The original's."""
        return self._text.fileno()

    def close(self) -> None:
        """It stays."""
