"""What the master is given once the application has been loaded. Made by `worker/run.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..core.companion import About
from .autoscale import Autoscale
from .consumer import Consumer


@dataclass(frozen=True, slots=True)
class Plan:
    """What the master needs once the application is loaded: the consumer, and how many children.

    `give_back` has the broker take back all that is held in the name of `owner` (`worker/giving_back.py`).
    """

    consumer: Consumer
    size: int
    soft_s: float = 0.0
    max_memory_kib: int = 0
    max_memory_hard_kib: int = 0
    autoscale: Autoscale | None = None
    deaf_timeout_s: float = 0.0
    owner: str = ""
    give_back: Callable[[], list[str]] = list
    about: About = field(default_factory=About)
