"""`dynamodb://` URLs and the options that go with them: which table, where, as whom; read and checked, nothing opened.

Called by the store's constructor. Celery's spelling, `dynamodb://KEY:SECRET@region/table?ttl_seconds=…&read=…&write=…`,
means the same here. Secrets stand in the result and in no message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from ..core.errors import ConfigError
from ..core.settings_values import nearest
from .base import SettingsLike

#: Where results stand when the URL names no table: Celery's default too.
DEFAULT_TABLE: Final = "celery"
#: What an endpoint gets as its region when nothing names one; for AWS itself see `open_client`.
LOCAL_REGION: Final = "us-east-1"
#: The worker's consumer thread, which also renews its leases, waits for the store's calls.
_LONGEST_S: Final = 4.0
_SHAPE: Final = (
    "write dynamodb://eu-west-1/table, or dynamodb://KEY:SECRET@eu-west-1/table with both parts percent-encoded "
    "(/ is %2F, + is %2B, @ is %40)"
)
_PARAMETERS: Final = frozenset(
    {"ttl_seconds", "read", "write", "endpoint", "endpoint_url", "region", "profile", "session_token", "create_table"}
)
_TABLE: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
_WORDS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Place:
    """A table and the way to it. `key_id` None = botocore's own search for credentials; `region` None = its own choice.

    `ttl_s` None = by the settings, negative = for ever. `read` and `write` are capacity units for a table that is
    created, 0 = pay per request. `timeout_s` bounds one verb of the store.
    """

    table: str
    region: str | None
    endpoint: str | None
    key_id: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    token: str | None = field(repr=False)
    profile: str | None
    role: str | None
    role_s: int
    ttl_s: int | None
    read: int
    write: int
    creates_table: bool
    timeout_s: float


def read_place(url: str, settings: SettingsLike) -> Place:
    """Return what `url` and the settings name. Raises ConfigError, without a secret, with every mistake it can see."""
    body, _, query = url.partition("://")[2].partition("?")
    options = settings.get("result_backend_transport_options") or {}
    key_id, secret, host, table = _parts(body)
    given = {**{name: value for name, value in options.items() if name in _PARAMETERS}, **_parameters(query)}
    problems: list[str] = []
    endpoint = given.get("endpoint") or given.get("endpoint_url") or settings.get("dynamodb_endpoint_url")
    region, endpoint = _region(host, given.get("region"), endpoint, problems)
    if not _TABLE.fullmatch(table):
        problems.append(f"{table!r} is no name of a DynamoDB table: 3 to 255 letters, digits, and . _ -")
    place = Place(
        table=table,
        region=region,
        endpoint=endpoint,
        key_id=key_id,
        secret=secret,
        token=given.get("session_token") if key_id else None,
        profile=given.get("profile"),
        role=options.get("sts_role_arn"),
        role_s=int(options.get("sts_token_timeout") or 900),
        ttl_s=_ttl(given, problems),
        read=_whole(given, "read", problems),
        write=_whole(given, "write", problems),
        creates_table=_flag(given, problems),
        timeout_s=_timeout(options),
    )
    if problems:
        raise ConfigError(*(f"the result backend: {problem}" for problem in problems))
    return place


def _parts(body: str) -> tuple[str | None, str | None, str, str]:
    """Key id, secret, `host[:port]` and table. An unencoded / in a secret would end the host too early: refused."""
    user, at, place = body.rpartition("@")
    if "/" in user or "@" in user:
        raise ConfigError(f"the credentials in the result backend's URL hold a / or @ as it is; {_SHAPE}")
    host, _, table = place.partition("/")
    port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else ""
    if port and not port.isdigit():
        raise ConfigError(f"the result backend's URL has credentials but no @ behind them, or no port; {_SHAPE}")
    key_id, colon, secret = user.partition(":")
    if at and user and not (colon and key_id and secret):
        raise ConfigError(f"the result backend's URL has one half of the credentials only; {_SHAPE}")
    return unquote(key_id) or None, unquote(secret) or None, host, unquote(table.strip("/")) or DEFAULT_TABLE


def _parameters(query: str) -> dict[str, str]:
    # A + in a token is a plus: parse_qsl would make it a space.
    found = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    unknown = [
        f"the result backend's URL: no parameter {n!r}{nearest(n, _PARAMETERS)}" for n in found.keys() - _PARAMETERS
    ]
    if unknown:
        raise ConfigError(*sorted(unknown))
    return found


def _region(host: str, named: str | None, endpoint: str | None, problems: list[str]) -> tuple[str | None, str | None]:
    """The URL's host is a region of AWS or an emulator's place: a loopback name, an address, whatever has a port."""
    if endpoint is not None and not str(endpoint).startswith(("http://", "https://")):
        problems.append(f"the endpoint {str(endpoint)[:100]!r} must begin with http:// or https://")
    if host and _is_place(host):
        return named or LOCAL_REGION, endpoint or f"http://{host}"
    region = host or named or None
    if region and not endpoint and not _REGION.fullmatch(region):
        problems.append(f"{region!r} is no region of AWS; {_SHAPE}")
    return region, endpoint


def _is_place(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        if parts.port is not None or parts.hostname == "localhost":
            return True
        ip_address(parts.hostname or "")
    except ValueError:
        return False
    return True


def _ttl(given: Mapping[str, Any], problems: list[str]) -> int | None:
    if given.get("ttl_seconds") in (None, ""):
        return None
    try:
        ttl_s = int(given["ttl_seconds"])
    except (TypeError, ValueError):
        problems.append(f"ttl_seconds={given['ttl_seconds']!r} is no whole number of seconds")
        return None
    if ttl_s == 0:
        problems.append("ttl_seconds=0 would end every result at once; give -1 to keep results for ever")
    return ttl_s


def _whole(given: Mapping[str, Any], name: str, problems: list[str]) -> int:
    value = given.get(name) or 0
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        problems.append(f"{name}={value!r} is no number of capacity units")
    return number


def _flag(given: Mapping[str, Any], problems: list[str]) -> bool:
    value = given.get("create_table", False)
    flag = value if isinstance(value, bool) else _WORDS.get(str(value).lower())
    if flag is None:
        problems.append(f"create_table={value!r} is neither true nor false")
    return bool(flag)


def _timeout(options: Mapping[str, Any]) -> float:
    given = options.get("socket_timeout")
    return min(float(given), _LONGEST_S) if isinstance(given, int | float) and given > 0 else _LONGEST_S
