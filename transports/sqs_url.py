"""`sqs://` URLs and `broker_transport_options` for SQS: where to go, as whom, and how; nothing is opened.

Called by the adapter's constructor (sqs.py). Secrets stand in the result and in no message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from ..core.errors import ConfigError
from ..core.settings_values import Converter, nearest
from .options import positive, read_options
from .order import ORDER_OPTIONS

#: What AWS allows a receipt to be invisible, all renewals together.
MOST_CLAIM_S: Final = 43200
#: A larger payload could not be sent in base64, even to a queue that takes 1 MiB.
MOST_THRESHOLD: Final = 768 * 1024
_SHAPE: Final = (
    "write sqs://KEY:SECRET@ (percent-encode both: / is %2F, + is %2B, @ is %40), sqs://KEY:SECRET@host:port for "
    "another endpoint, or sqs:// for credentials from the environment"
)
#: What a predefined queue may say.
_QUEUE_KEYS: Final = frozenset(
    {
        "url",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "region",
        "backoff_policy",
        "backoff_tasks",
        "is_secure",
    }
)


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks, and where: everything a client is made of. `key_id` None = botocore's own search for credentials."""

    key_id: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    region: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long the message of a listed task waits after its n-th failed run."""

    policy: Mapping[int, float] = field(default_factory=dict)
    tasks: frozenset[str] = frozenset()

    def wait_s(self, runs: int) -> float:
        """The wait after `runs` failed runs; beyond the table's end its last value, before its start the first."""
        numbers = [n for n in self.policy if n <= runs]
        return float(self.policy[max(numbers) if numbers else min(self.policy)])


@dataclass(frozen=True, slots=True)
class Predefined:
    """A queue that is named with its URL, and with credentials of its own if need be."""

    url: str
    account: Account
    backoff: Backoff


def read_url(url: str, options: Mapping[str, Any]) -> Account:
    """Return the account that `url` names. Raises ConfigError with the right spelling, without a secret."""
    rest, _, query = url.partition("://")[2].partition("?")
    if query:
        raise ConfigError("sqs:// takes no parameters after a '?'; put them into broker_transport_options")
    user, at, place = rest.rpartition("@")
    if not at and ":" in rest and not rest.rpartition(":")[2].strip("/").isdigit():
        raise ConfigError(f"the broker URL has credentials, but no @ behind them; {_SHAPE}")
    if "/" in user or "@" in user:
        raise ConfigError(f"the credentials in the broker URL hold a / or @ that is not percent-encoded; {_SHAPE}")
    key_id, colon, secret = user.partition(":")
    if at and user and not (colon and key_id and secret):
        raise ConfigError(f"the broker URL has one half of the credentials only; {_SHAPE}")
    return Account(
        unquote(key_id) or None,
        unquote(secret) or None,
        options.get("session_token"),
        options.get("region"),
        _endpoint(place.rstrip("/"), options.get("is_secure", False)),
    )


def _endpoint(place: str, is_secure: bool) -> str | None:
    if not place or (place == "localhost" and not is_secure):
        return f"http://{place}" if place else None
    try:
        parts = urlsplit(f"//{place}")
        has_place = bool(parts.hostname) and (parts.port is None or parts.port > 0) and not parts.path
    except ValueError:
        has_place = False
    if not has_place:
        raise ConfigError(f"the broker URL's endpoint {place!r} is no host:port; {_SHAPE}")
    return f"{'https' if is_secure else 'http'}://{place}"


def predefined(value: Any, base: Account) -> dict[str, Predefined]:
    """Return the queues of the option `predefined_queues`. Raises ConfigError with every mistake."""
    problems: list[str] = []
    found = {}
    for name, given in (value or {}).items():
        where = f"broker_transport_options['predefined_queues'][{name!r}]"
        if not isinstance(given, Mapping) or not str(given.get("url", "")).startswith(("http://", "https://")):
            problems.append(f"{where} must be a dict with a 'url' that begins with https://")
            continue
        problems += [f"{where} has no {key!r}{nearest(key, _QUEUE_KEYS)}" for key in given if key not in _QUEUE_KEYS]
        if "%" in str(given.get("secret_access_key", "")):
            problems.append(f"{where}: credentials stand here as they are, not percent-encoded; the secret has a %")
        try:
            found[name] = Predefined(given["url"], _account_of(given, base), _backoff(given))
        except ValueError as problem:
            problems.append(f"{where}: {problem}")
    if problems:
        raise ConfigError(*problems)
    return found


def _account_of(given: Mapping[str, Any], base: Account) -> Account:
    parts = urlsplit(given["url"])
    host = parts.hostname or ""
    is_aws = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    own = given.get("access_key_id") or None
    return Account(
        own or base.key_id,
        given.get("secret_access_key") or (None if own else base.secret),
        given.get("session_token") or (None if own else base.token),
        given.get("region") or (_region_in(host) if is_aws else None) or base.region,
        base.endpoint if is_aws else f"{parts.scheme}://{parts.netloc}",
    )


def _region_in(host: str) -> str | None:
    """From `sqs.eu-west-1.amazonaws.com` or the older `eu-west-1.queue.amazonaws.com`."""
    labels = host.split(".")
    if labels[0].startswith("sqs") and len(labels) > 3:
        return labels[1]
    return labels[0] if len(labels) > 3 and labels[1] == "queue" else None


def _backoff(given: Mapping[str, Any]) -> Backoff:
    policy, tasks = given.get("backoff_policy") or {}, given.get("backoff_tasks") or ()
    if isinstance(tasks, str) or not all(isinstance(name, str) for name in tasks):
        raise ValueError("backoff_tasks must be a list of task names")
    if not isinstance(policy, Mapping):
        raise ValueError("backoff_policy must be a dict of run numbers and seconds, for example {1: 10, 2: 60}")
    numbers = {}
    for number, wait_s in policy.items():
        try:
            numbers[int(number)] = float(wait_s)
        except (TypeError, ValueError):
            raise ValueError(f"backoff_policy: {number!r}: {wait_s!r} is no pair of numbers") from None
        if not 0 <= numbers[int(number)] <= MOST_CLAIM_S:
            raise ValueError(f"backoff_policy: {wait_s!r} is not within 0 and {MOST_CLAIM_S} seconds")
    if tasks and not numbers:
        raise ValueError("backoff_tasks without a backoff_policy has no effect")
    return Backoff(numbers, frozenset(tasks))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text that is not empty")
    return value


def _prefix(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def _within(least: float, most: float) -> Converter:
    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return value

    return convert


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("must be a dict")
    return value


def _anything(value: Any) -> Any:
    return value


#: Accepted because Celery has them: fanout over SNS does not exist here, and attributes are always fetched.
_IDLE: Final[Mapping[str, Converter]] = dict.fromkeys(
    ("supports_fanout", "fetch_message_attributes", "client-config", "interval", "aws_account_id", "port"), _anything
)

OPTIONS: Final[Mapping[str, Converter]] = {
    "region": _text,
    "session_token": _text,
    "is_secure": _flag,
    "queue_name_prefix": _prefix,
    "predefined_queues": _mapping,
    "visibility_timeout": _within(0, MOST_CLAIM_S),
    "polling_interval": _within(0, 3600),
    "wait_time_seconds": _within(0, 20),
    "sts_role_arn": _text,
    "sts_token_timeout": _within(900, MOST_CLAIM_S),
    "sts_token_buffer_time": _within(0, 3600),
    "sqs_base64_encoding": _flag,
    "dead_letter_queue": _text,
    "s3_bucket": _text,
    "s3_prefix": _prefix,
    "s3_threshold_bytes": _within(1024, MOST_THRESHOLD),
    "queue_tags": _mapping,
    "sqs-creation-attributes": _mapping,
    "create_missing_queues": _flag,
    "lease_timeout": _within(3, MOST_CLAIM_S),
    "socket_timeout": positive,
    **ORDER_OPTIONS,
    **_IDLE,
}


def read_sqs_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, checked. Raises ConfigError with one sentence for each mistake."""
    return read_options(given, OPTIONS)
