"""Base64 as the wire uses it: strict, so that a damaged body is noticed here and not half-read later."""

from __future__ import annotations

import binascii
import sys
from functools import partial

if sys.version_info >= (3, 11):
    _strict = partial(binascii.a2b_base64, strict_mode=True)
else:
    import base64

    _strict = partial(base64.b64decode, validate=True)


def from_base64(text: str) -> bytes:
    """Return the bytes that `text` stands for; line breaks in it are ignored. Raises ValueError (binascii.Error)."""
    try:
        return _strict(text)
    except binascii.Error:
        joined = "".join(text.split())
        if len(joined) == len(text):
            raise
        return _strict(joined)


def to_base64(data: bytes) -> str:
    """Return `data` as base64 without line breaks."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")
