"""URLs of brokers and result stores: parsed once, shown only without their secrets (P10)."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_SECRET_PARAMETERS = ("password", "secret", "token", "credential", "key")


def redact(url: str) -> str:
    """Return `url` with every password replaced by `**`; never raises, so that it is safe in an error message."""
    return ";".join(_redact_one(part) for part in url.split(";"))


def scheme_of(url: str) -> str:
    """Return the lower-case scheme of `url`, or an empty string."""
    return url.split("://", 1)[0].lower() if "://" in url else ""


def _redact_one(url: str) -> str:
    if "://" not in url:
        return url if "@" not in url else "**@" + url.rsplit("@", 1)[1]
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.split("://", 1)[0] + "://**"
    netloc = parts.netloc
    if "@" in netloc:
        user, host = netloc.rsplit("@", 1)
        name = user.split(":", 1)[0]
        # An access key id (sqs://KEY:SECRET@) is half a secret: it is not shown either.
        shown = "**" if parts.scheme == "sqs" else name
        netloc = f"{shown}:**@{host}" if ":" in user else f"{shown}@{host}"
    if netloc == parts.netloc and not parts.query:
        return url.split("#", 1)[0]  # as it was written: urlunsplit would swallow slashes of sqlite:////path
    query = urlencode([(k, "**" if _is_secret(k) else v) for k, v in parse_qsl(parts.query)], safe="*/")
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def _is_secret(parameter: str) -> bool:
    return any(word in parameter.lower() for word in _SECRET_PARAMETERS)
