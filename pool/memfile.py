"""A file in memory that processes share by its descriptor."""

from __future__ import annotations

import os


def memory_file(name: str) -> int:
    """Return the descriptor of a new, empty one (Linux: memfd; elsewhere an unlinked temporary file)."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    import tempfile  # not needed on Linux

    fd, path = tempfile.mkstemp(prefix=name)
    os.unlink(path)
    return fd
