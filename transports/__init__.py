"""Brokers: one protocol, several adapters. `open_transport` is the way in; adapters load when a URL names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import (
    Ack,
    Capabilities,
    DeadLetter,
    Delivery,
    Envelope,
    Maintenance,
    Rejection,
    Settled,
    Transport,
)
from .options import broker_options, lease_option, tls_options
from .registry import open_transport, preload

if TYPE_CHECKING:
    from .order import Order, Place, carry_out
    from .published import DATED, VERSION_AT, published_at, published_in
    from .redis_link import Command, Link
    from .redis_refusals import is_wrong_server, refusal
    from .redis_sentinel import open_link
    from .redis_url import Endpoint, read_url
    from .sqs_offload import POINTER_TYPE
    from .unique import make_seal, seal_of, task_id_in

__all__ = [
    "DATED",
    "POINTER_TYPE",
    "VERSION_AT",
    "Ack",
    "Capabilities",
    "Command",
    "DeadLetter",
    "Delivery",
    "Endpoint",
    "Envelope",
    "Link",
    "Maintenance",
    "Order",
    "Place",
    "Rejection",
    "Settled",
    "Transport",
    "broker_options",
    "carry_out",
    "is_wrong_server",
    "lease_option",
    "make_seal",
    "open_link",
    "open_transport",
    "preload",
    "published_at",
    "published_in",
    "read_url",
    "refusal",
    "seal_of",
    "task_id_in",
    "tls_options",
]

# For the result store, producers and brokers in memory: loaded when they are asked for.
_LAZY = {
    "Command": "redis_link",
    "Endpoint": "redis_url",
    "Link": "redis_link",
    "Order": "order",
    "DATED": "published",
    "POINTER_TYPE": "sqs_offload",
    "VERSION_AT": "published",
    "Place": "order",
    "carry_out": "order",
    "make_seal": "unique",
    "published_at": "published",
    "published_in": "published",
    "seal_of": "unique",
    "task_id_in": "unique",
    "is_wrong_server": "redis_refusals",
    "open_link": "redis_sentinel",
    "read_url": "redis_url",
    "refusal": "redis_refusals",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
