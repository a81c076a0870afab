"""Moments on the wire: ISO 8601 text to and from Python objects and seconds since the epoch.

Called by typed_json.py for typed objects, by codec.py for `eta` and `expires`, and by task.py when publishing.
"""

from __future__ import annotations

import re
import sys
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Final

UTC: Final = timezone.utc

# Python 3.10 reads exactly what isoformat() writes; other producers write Z, or milliseconds of any length.
_FRACTION: Final = re.compile(r"\.(\d+)")


def parse_datetime(text: str) -> datetime:
    """Return the datetime that ISO 8601 `text` names, naive if it says nothing about an offset. Raises ValueError."""
    return datetime.fromisoformat(_normal(text))


def parse_date(text: str) -> date:
    """Return the date that `text` names; a time behind it is dropped. Raises ValueError."""
    return datetime.fromisoformat(_normal(text)).date()


def parse_time(text: str) -> time:
    """Return the time of day that `text` names. Raises ValueError."""
    return time.fromisoformat(_normal(text))


def parse_moment(text: str, zone_name: str) -> float:
    """Return seconds since the epoch for ISO 8601 `text`; without an offset it is a time in `zone_name`.

    Raises ValueError or OverflowError.
    """
    return to_epoch(parse_datetime(text), zone_name)


def to_epoch(moment: datetime, zone_name: str) -> float:
    """Return seconds since the epoch; a naive `moment` is a time in `zone_name`. Raises OverflowError."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=find_zone(zone_name))
    return moment.timestamp()


def from_now(when: float | timedelta | datetime | str, now: float, zone_name: str) -> float:
    """Return seconds since the epoch for a time (see `to_epoch`) or for a number of seconds or timedelta after `now`.

    Raises ValueError or OverflowError.
    """
    if isinstance(when, timedelta):
        return now + when.total_seconds()
    if isinstance(when, int | float):
        return now + when
    return to_epoch(parse_datetime(when) if isinstance(when, str) else when, zone_name)


def to_iso(epoch_s: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC with its offset, as a Celery producer writes a countdown."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat()


def find_zone(name: str) -> tzinfo:
    """Return the time zone called `name`. Raises KeyError for one that this machine does not know."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # caches; most applications never need it

    return ZoneInfo(name)


def _normal(text: str) -> str:
    if sys.version_info >= (3, 11):
        return text
    if text.endswith(("Z", "z")):
        text = text[:-1] + "+00:00"
    return _FRACTION.sub(lambda found: "." + found[1][:6].ljust(6, "0"), text, count=1)
