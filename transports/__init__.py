"""Brokers: one protocol, several adapters. `open_transport` is the way in; adapters load when a URL names them."""

from __future__ import annotations

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
from .registry import open_transport

__all__ = [
    "Ack",
    "Capabilities",
    "DeadLetter",
    "Delivery",
    "Envelope",
    "Maintenance",
    "Rejection",
    "Settled",
    "Transport",
    "open_transport",
]
