"""Signals are blocked around fork, so that no handler of the parent runs in a half-made child."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Hold back `signals` for the calling thread while the block runs; what arrived is delivered afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(signals))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
