"""What several rooms' tests share. Shop and Worker load when they are asked for: they need the whole package."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .redis_server import RedisServer
from .waiting import wait_until

if TYPE_CHECKING:
    from .shop import Shop
    from .worker import Worker

__all__ = ["RedisServer", "Shop", "Worker", "wait_until"]

_LAZY = {"Shop": ".shop", "Worker": ".worker"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
