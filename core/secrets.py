"""What must not be read in any line of ours (P10): passwords in URLs, and every secret that this process has been told.

Whoever builds a sentence shows a URL with `urls.redact`. This is the net below: libraries put URLs and settings into
their exceptions, and tracebacks show lines of source code. The log's handler and `journal.say` pass every line
through `scrub`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: Shorter ones would turn up in words that are no secret.
_SHORTEST: Final = 6
_WORDS: Final = re.compile(r"passw|passphrase|secret|token|credential|access_key|private_key", re.IGNORECASE)
#: Without the scheme before it, and not over the next `://`: each letter is looked at once, however long the text is.
_IN_URL: Final = re.compile(r"(://[^\s/'\"<>@:]*):((?:(?!://)[^\s'\"<>])*)@")
#: What AWS's own libraries read.
_VARIABLES: Final = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_MARK: Final = "**"

_known: Final[list[str]] = []


def scrub(text: str) -> str:
    """`text` without secrets. About 0.1 µs for each that is known, as long as there is none in it."""
    for secret in _known:
        if secret in text:
            text = text.replace(secret, _MARK)
    return _IN_URL.sub(rf"\1:{_MARK}@", text) if "@" in text and "://" in text else text


def learn(settings: Mapping[str, Any]) -> None:
    """Keep every secret in `settings` (URLs, options in dicts and lists), and the environment's, out of lines."""
    found = {secret for name, value in settings.items() for secret in _secrets(name, value)}
    found.update(os.environ.get(name, "") for name in _VARIABLES)
    written = {form for secret in found for form in _forms(secret) if len(form) >= _SHORTEST}
    # The longest first: one may be a part of another.
    _known[:] = sorted(written | set(_known), key=len, reverse=True)


def _secrets(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(str(key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(name, inner)
    elif isinstance(value, str):
        if _WORDS.search(name):
            yield value
        if "://" in value:
            for part in value.split(";"):
                yield from _of_url(part)


def _of_url(url: str) -> Iterator[str]:
    scheme, _, rest = url.partition("://")
    login, at, _ = rest.split("?", 1)[0].rpartition("@")
    if at:
        user, colon, password = login.partition(":")
        yield password
        if scheme.lower() in ("sqs", "dynamodb") and colon:
            yield user  # an access key's id is half of it
    for pair in url.partition("?")[2].split("&"):
        key, _, value = pair.partition("=")
        if _WORDS.search(key):
            yield value


def _forms(secret: str) -> set[str]:
    """As it is written, and as URLs and JSON write it."""
    import json  # here, because `qworker --version` comes along as well, and has no secrets
    from urllib.parse import quote, unquote

    plain = unquote(secret)
    return {secret, plain, quote(plain, safe=""), json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1]}
