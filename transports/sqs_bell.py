"""What wakes the consumer thread: a pipe, readable after `ring`. Owned by sqs_polls, whose threads ring."""

from __future__ import annotations

import os
import threading


class Bell:
    """Any thread rings; the rest is the consumer thread's."""

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None
        self._lock = threading.Lock()

    @property
    def is_hung(self) -> bool:
        """Whether anybody has asked for the descriptor: before, nobody can be woken."""
        return self._pipe is not None

    def fileno(self) -> int:
        """The descriptor that becomes readable; made when it is first asked for."""
        if self._pipe is None:
            self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return self._pipe[0]

    def ring(self) -> None:
        """Make it readable."""
        with self._lock:
            if self._pipe is not None:
                try:
                    os.write(self._pipe[1], b"x")
                except OSError:  # full: it is readable already
                    pass

    def drain(self) -> None:
        """Forget what made it readable."""
        try:
            while os.read(self.fileno(), 4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the pipe; ringing does nothing from now on."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
        for fd in pipe or ():
            os.close(fd)
