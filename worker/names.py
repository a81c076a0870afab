"""Who this worker is: a node name for people, and an owner name that no earlier or later worker shares."""

from __future__ import annotations

import os
import secrets
import socket


def node_name(template: str | None) -> str:
    """Return the node name: `celery@<host>` by default; %h is the host name, %n its first part, %d its domain."""
    host = socket.gethostname()
    name, _, domain = host.partition(".")
    text = template or "celery@%h"
    filled = text.replace("%h", host).replace("%n", name).replace("%d", domain)
    return filled if "@" in filled else f"{filled}@{host}"


def owner_name(node: str) -> str:
    """Return the name under which messages are held: it holds a nonce, so a restarted worker is somebody else (P3)."""
    return f"{node}/{os.getpid()}-{secrets.token_hex(8)}"
