"""URLs of brokers and result stores: parsed once, shown only without their secrets (P10)."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

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
    if scheme_of(url) == "sqs":
        return _redact_sqs(url)
    if scheme_of(url) == "dynamodb":
        return _redact_dynamodb(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.split("://", 1)[0] + "://**"
    netloc = parts.netloc
    if (rest := _with_bare_login(url, netloc)) is not None:
        return f"{url.split('://', 1)[0]}://{rest}"
    if "@" in netloc:
        user, host = netloc.rsplit("@", 1)
        name = user.split(":", 1)[0]
        netloc = f"{name}:**@{host}" if ":" in user else f"{name}@{host}"
    if netloc == parts.netloc and not parts.query:
        return url.split("#", 1)[0]  # as it was written
    query = urlencode([(k, "**" if _is_secret(k) else v) for k, v in parse_qsl(parts.query)], safe="*/")
    # Not urlunsplit: it swallows slashes of redis+socket:///path
    return f"{parts.scheme}://{netloc}{parts.path}" + (f"?{query}" if query else "")


def _with_bare_login(url: str, netloc: str) -> str | None:
    """What to show of a URL whose password seems to end the host part early: it holds a bare `/`, `?` or `#`.

    Then what stands for a port is no number, or another @ follows. None for all others.
    """
    if place := _behind_bare_login(url):
        return f"**@{place.split('?')[0]}"
    host, colon, port = netloc.rpartition(":")
    if not colon or "@" in netloc or port.isdigit() or not port or port.endswith("]"):
        return None
    _, at, place = url.split("://", 1)[1].rpartition("@")
    return f"**@{place.split('?')[0]}" if at else f"{host}:**"


def has_bare_login(url: str) -> bool:
    """Whether the password holds an @ and a `/`, `?` or `#` as they are, so that the URL cannot be read as meant."""
    return bool(_behind_bare_login(url))


def _behind_bare_login(url: str) -> str:
    """What follows the last @, if one stands before and one behind the end of the host part; else an empty string."""
    rest = url.partition("://")[2]
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    before, _, place = rest.rpartition("@")
    # Behind a = it belongs to a parameter's value.
    return place if "@" in netloc and len(before) > len(netloc) and "=" not in before[len(netloc) :] else ""


def _redact_sqs(url: str) -> str:
    rest = url.split("://", 1)[1].split("?", 1)[0]
    return f"sqs://{_without_login(rest, rest.strip('/'))}"


def _redact_dynamodb(url: str) -> str:
    rest, mark, query = url.split("://", 1)[1].partition("?")
    pairs = urlencode([(k, "**" if _is_secret(k) else v) for k, v in parse_qsl(query)], safe="*/:")
    return f"dynamodb://{_without_login(rest, rest.partition('/')[0])}{mark}{pairs}"


def _without_login(rest: str, host: str) -> str:
    """An access key id is half a secret, so not shown either; nor are secrets with a bare slash, or without an @."""
    user, at, place = rest.rpartition("@")
    if at:
        return f"{'**:**' if ':' in user else '**' if user else ''}@{place}"
    return rest if ":" not in host or host.rpartition(":")[2].isdigit() else "**"


def _is_secret(parameter: str) -> bool:
    return any(word in parameter.lower() for word in _SECRET_PARAMETERS)
