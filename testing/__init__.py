"""Stand-ins for time and broker, for fast tests of workers and of applications. They keep the real ones' contracts."""

from __future__ import annotations

from .clock import FakeClock
from .flaky import FlakyTransport
from .memory import MemoryTransport
from .memory_broker import MemoryBroker

__all__ = ["FakeClock", "FlakyTransport", "MemoryBroker", "MemoryTransport"]
