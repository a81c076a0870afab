"""systemd: what a service tells it (`notify`), and the unit files that tell it how to run one (`units`).

The units load when they are asked for: a worker that starts needs only the other half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .notify import Notifier, take

if TYPE_CHECKING:
    from .units import Service, service_unit, shipped, template_unit

__all__ = ["Notifier", "Service", "service_unit", "shipped", "take", "template_unit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import units

    return getattr(units, name)
