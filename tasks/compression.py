"""Compressed bodies: the `compression` header names the method; what unpacks to more than allowed is refused.

Called by codec.py and encoding.py. Everything here works on a limit, because a few kilobytes can unpack to gigabytes.
Brotli and Zstandard need a package; the rest is in the standard library.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ..core.errors import ConfigError
from .typed_json import DecodeError


class TooLarge(Exception):
    """The data unpacks to more than the limit."""


class _Method(NamedTuple):
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


def content_type_of(name: str) -> str:
    """Return what the `compression` header says for `name` (`gzip`, `bzip2`, …). Raises ConfigError."""
    if name in _METHODS:
        return name
    if name in _NAMES:
        return _NAMES[name]
    raise ConfigError(f"there is no compression {name!r}; there are {', '.join(_NAMES)}")


def compress(data: bytes, content_type: str) -> bytes:
    """Return `data` packed by the method whose header is `content_type`. Raises ConfigError if a package is missing."""
    return _METHODS[content_type].compress(data)


def decompress(data: bytes, content_type: str, limit: int) -> bytes:
    """Return what `data` unpacks to, at most `limit` bytes.

    Raises LookupError for an unknown method, TooLarge, DecodeError for data that is damaged or cut off, ConfigError
    if a package is missing.
    """
    method = _METHODS.get(content_type)
    if method is None:
        raise LookupError(content_type)
    try:
        return method.decompress(data, limit)
    except (TooLarge, ConfigError, DecodeError):
        raise
    # Each library has its own error class, and importing one to name it would import the library.
    except Exception as problem:
        raise DecodeError(f"{type(problem).__name__}: {problem}"[:500]) from problem


def _zlib_compress(data: bytes) -> bytes:
    import zlib

    return zlib.compress(data)


def _zlib_decompress(data: bytes, limit: int) -> bytes:
    import zlib

    # 47 = the largest window, header of zlib (what Celery writes) or of gzip (what other producers understand by the
    # name).
    return _bounded(zlib.decompressobj(47), data, limit)


def _bz2_compress(data: bytes) -> bytes:
    import bz2

    return bz2.compress(data)


def _bz2_decompress(data: bytes, limit: int) -> bytes:
    import bz2

    return _bounded(bz2.BZ2Decompressor(), data, limit)


def _lzma_compress(data: bytes) -> bytes:
    import lzma

    return lzma.compress(data)


def _lzma_decompress(data: bytes, limit: int) -> bytes:
    import lzma

    # The dictionary of an xz stream is allocated before the first byte comes out: bound it as well.
    return _bounded(lzma.LZMADecompressor(memlimit=limit + (64 << 20)), data, limit)


def _zstd_compress(data: bytes) -> bytes:
    packed: bytes = _zstd().compress(data)
    return packed


def _zstd_decompress(data: bytes, limit: int) -> bytes:
    return _bounded(_zstd().ZstdDecompressor(), data, limit)


def _zstd() -> Any:
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return _package(module, module.replace(".", "-"))


def _brotli_compress(data: bytes) -> bytes:
    packed: bytes = _package("brotli", "brotli").compress(data)
    return packed


def _brotli_decompress(data: bytes, limit: int) -> bytes:
    decompressor = _package("brotli", "brotli>=1.2").Decompressor()
    # Before 1.2 there is no such limit and this is a TypeError: rather refused than unpacked without one.
    unpacked: bytes = decompressor.process(data, output_buffer_limit=limit + 1)
    if len(unpacked) > limit:
        raise TooLarge
    if not decompressor.is_finished():
        raise DecodeError("the compressed data is cut off")
    return unpacked


def _bounded(decompressor: Any, data: bytes, limit: int) -> bytes:
    unpacked: bytes = decompressor.decompress(data, limit + 1)
    if len(unpacked) > limit:
        raise TooLarge
    if not decompressor.eof:
        raise DecodeError("the compressed data is cut off")
    return unpacked


def _package(module: str, project: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"this compression needs a package that is not installed: pip install '{project}'") from None


_NAMES: Final = {
    "gzip": "application/x-gzip",
    "zlib": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
    "brotli": "application/x-brotli",
}

_METHODS: Final = {
    "application/x-gzip": _Method(_zlib_compress, _zlib_decompress),
    "application/x-bz2": _Method(_bz2_compress, _bz2_decompress),
    "application/x-lzma": _Method(_lzma_compress, _lzma_decompress),
    "application/zstd": _Method(_zstd_compress, _zstd_decompress),
    "application/x-brotli": _Method(_brotli_compress, _brotli_decompress),
}
