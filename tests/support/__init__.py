"""What several rooms' tests share. Shops and Worker load when they are asked for: they need the whole package."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .redis_server import RedisServer
from .waiting import wait_until

if TYPE_CHECKING:
    from .shop import Shop, shops_in
    from .worker import Worker

__all__ = ["RedisServer", "Shop", "Worker", "shops_in", "wait_until"]

_LAZY = {"Shop": ".shop", "Worker": ".worker", "shops_in": ".shop"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
