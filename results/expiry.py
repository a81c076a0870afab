"""How long results are kept: the settings `result_expires` and `result_failure_expires`, as whole seconds."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, NamedTuple

from ..core.errors import ConfigError
from .base import SettingsLike

DEFAULT_S: Final = 86_400


class Expiry(NamedTuple):
    """Seconds to live; None = for ever. `failure_s` is for status FAILURE only, `s` for every other."""

    s: int | None
    failure_s: int | None


def expiry_from(settings: SettingsLike) -> Expiry:
    """Read both settings: seconds or a timedelta, 0 and None for ever; failures follow `result_expires` unless told."""
    general = _seconds("result_expires", settings.get("result_expires", DEFAULT_S))
    failure = settings.get("result_failure_expires")
    return Expiry(general, general if failure is None else _seconds("result_failure_expires", failure))


def _seconds(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(f"{name}={value!r} is neither a number of seconds nor a timedelta; give 86400 for one day")
    return round(value) or None
