"""TLS to a Redis server: the options that redis-py and Celery have for it, and the context that they make.

Called by redis_url.py, which checks the options, and by redis_socket.py, which connects. `ssl` is imported where TLS is
used and nowhere else: it costs 20 ms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..core.settings_values import Converter, boolean, text
from .redis_refusals import Denied

if TYPE_CHECKING:
    import socket
    import ssl

_CERT_REQS: Final = ("none", "optional", "required")
_VERSIONS: Final = {"1.2": "TLSv1_2", "1.3": "TLSv1_3"}
#: What to do about a certificate that was not accepted, by OpenSSL's verify code.
_UNTRUSTED: Final = "set ssl_ca_certs to the file of the authority that has signed it"
_UNVERIFIED: Final = {
    10: "it has expired; renew it on the server",
    18: _UNTRUSTED,
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    62: "connect to a name that stands in it, or set ssl_check_hostname=false",
    64: "connect to a name or address that stands in it, or set ssl_check_hostname=false",
}
#: The same for other failures, by what stands in OpenSSL's reason.
_FAILED: Final = {
    "CERTIFICATE_REQUIRED": "it wants a client certificate; set ssl_certfile and ssl_keyfile",
    "HANDSHAKE_FAILURE": "it may want a client certificate (ssl_certfile, ssl_keyfile), or other ssl_ciphers",
    "UNKNOWN_CA": "it does not trust the authority of our client certificate; see ssl_certfile",
    "BAD_CERTIFICATE": "it does not accept our client certificate; see ssl_certfile",
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port; write redis:// or name its TLS port",
    "RECORD_LAYER_FAILURE": "it does not speak TLS on this port; write redis:// or name its TLS port",
    "PROTOCOL_VERSION": "it speaks another version of TLS; see ssl_min_version",
    "NO_PROTOCOLS": "it speaks another version of TLS; see ssl_min_version",
}


def _cert_reqs(value: Any) -> str:
    """`required`, `CERT_REQUIRED`, `ssl.CERT_REQUIRED`, or the number that this becomes on its way through JSON."""
    if isinstance(value, int) and not isinstance(value, bool) and value in (0, 1, 2):
        return _CERT_REQS[value]
    word = str(value).lower().rpartition(".")[2].removeprefix("cert_")
    if word not in _CERT_REQS:
        raise ValueError("must be 'required', 'optional' or 'none' (or CERT_REQUIRED, CERT_OPTIONAL, CERT_NONE)")
    return word


def _version(value: Any) -> str:
    """`TLSv1.2`, `1.2`, `ssl.TLSVersion.TLSv1_2` or its number."""
    number = {0x0303: "1.2", 0x0304: "1.3"}.get(value) if isinstance(value, int) else None
    found = number or ".".join(re.findall(r"\d+", str(value))[-2:])
    if found not in _VERSIONS:
        raise ValueError("must be 'TLSv1.2' or 'TLSv1.3'")
    return _VERSIONS[found]


def _text_or_bytes(value: Any) -> str | bytes:
    return value if isinstance(value, bytes) else text(value)


TLS_OPTIONS: Final[Mapping[str, Converter]] = {
    "ssl": boolean,
    "ssl_cert_reqs": _cert_reqs,
    "ssl_ca_certs": text,
    "ssl_ca_path": text,
    "ssl_ca_data": _text_or_bytes,
    "ssl_certfile": text,
    "ssl_keyfile": text,
    "ssl_password": text,
    "ssl_check_hostname": boolean,
    "ssl_min_version": _version,
    "ssl_ciphers": text,
}


def tls_of(found: Mapping[str, Any], *, wanted: bool) -> dict[str, Any] | None:
    """Return the TLS options among checked ones; None when TLS is neither `wanted` nor named by any of them."""
    options = {name: value for name, value in found.items() if name in TLS_OPTIONS}
    is_on = options.pop("ssl", None)
    return options if wanted or is_on or (options and is_on is None) else None


class SilentHandshake(TimeoutError):
    """The other side said nothing to our greeting: a plain Redis waits for the end of the line."""


def secured(plain: socket.socket, host: str, tls: Mapping[str, Any]) -> ssl.SSLSocket:
    """Shake hands on a connected socket. Raises OSError, or Denied for what is wrong on this side."""
    context = _context(tls)
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except TimeoutError as error:
        raise SilentHandshake from error


def advice(error: Exception) -> str:
    """What to do about a TLS error, in brackets; empty for any other error."""
    if isinstance(error, SilentHandshake):
        return " (it may not speak TLS on this port; write redis:// or name its TLS port)"
    text = _UNVERIFIED.get(getattr(error, "verify_code", -1), "")
    if type(error).__name__ == "SSLEOFError":  # what it had against us was lost
        return " (it may want a client certificate, ssl_certfile and ssl_keyfile, or not speak TLS on this port)"
    reason = str(getattr(error, "reason", "") or "") if hasattr(error, "library") else ""
    text = text or next((hint for word, hint in _FAILED.items() if word in reason), "")
    return f" ({text})" if text else ""


def _context(tls: Mapping[str, Any]) -> ssl.SSLContext:
    import ssl

    wanted = tls.get("ssl_cert_reqs", "required")
    try:
        # Without an authority of its own the system's are trusted.
        context = ssl.create_default_context(
            cafile=tls.get("ssl_ca_certs"), capath=tls.get("ssl_ca_path"), cadata=tls.get("ssl_ca_data")
        )
        context.check_hostname = tls.get("ssl_check_hostname", wanted == "required") and wanted != "none"
        context.verify_mode = ssl.VerifyMode[f"CERT_{wanted.upper()}"]
        if "ssl_min_version" in tls:
            context.minimum_version = ssl.TLSVersion[tls["ssl_min_version"]]
        if "ssl_ciphers" in tls:
            context.set_ciphers(tls["ssl_ciphers"])
        if tls.get("ssl_certfile"):
            # A key that is locked must not make OpenSSL ask for the password on the terminal.
            context.load_cert_chain(tls["ssl_certfile"], tls.get("ssl_keyfile"), lambda: tls.get("ssl_password", ""))
    except (OSError, ValueError) as error:
        raise Denied(f"TLS cannot be set up: {_unusable(error, tls)}") from error
    return context


def _unusable(error: Exception, tls: Mapping[str, Any]) -> str:
    """Which option is to blame, as far as OpenSSL tells."""
    reason = str(getattr(error, "reason", "") or getattr(error, "strerror", "") or error)
    files = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
    if "KEY_VALUES_MISMATCH" in reason:
        return "ssl_keyfile does not belong to ssl_certfile"
    if "CIPHER" in reason.upper():
        return f"ssl_ciphers={tls.get('ssl_ciphers')} names no usable cipher"
    for name in files:
        problem = _unreadable(tls[name]) if tls.get(name) else ""
        if problem:
            return f"{name}={tls[name]}: {problem}"
    key = tls.get("ssl_keyfile") or tls.get("ssl_certfile")
    if key and _is_locked(key) and "CERTIFICATE" not in reason:
        return f"ssl_password does not open {key}"
    given = ", ".join(f"{name}={tls[name]}" for name in files if tls.get(name)) or "ssl_ca_data"
    return f"{reason} in one of {given}; a file in PEM format is wanted"


def _is_locked(path: str) -> bool:
    with open(path, "rb") as file:
        return b"ENCRYPTED" in file.read(65536)


def _unreadable(path: str) -> str:
    import os

    try:
        with os.scandir(path) if os.path.isdir(path) else open(path, "rb"):
            return ""
    except OSError as error:
        return f"{error.strerror}; correct the path"
