"""Keeps libraries from writing secrets into our logs (P10). Called where their clients are made."""

from __future__ import annotations

import logging


def quiet_botocore() -> None:
    """At DEBUG botocore and urllib3 write down every header, the session token among them."""
    for name in ("botocore", "urllib3"):
        library = logging.getLogger(name)
        if library.level == logging.NOTSET:
            library.setLevel(logging.INFO)
