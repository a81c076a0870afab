"""When a message was published: its delivery tag says it, if a qworker producer wrote it.

Celery's tags are random UUIDs of version 4. Those of qworker (`tasks/ids.py`) are of version 7 (RFC 9562), which begin
with the time in milliseconds, by the producer's clock: so a message tells its age without a byte that Celery's have
not. Read by the child (`tasks/usage.py`) and by the adapters, for the oldest message of a queue (`Transport.oldest`).
"""

from __future__ import annotations

import re
from typing import Any, Final

# An unescaped quote ends a JSON string, so this cannot stand inside one. The same in Lua: lua/oldest.lua.
_TAG: Final = re.compile(rb'"delivery_tag": "([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})"')
_UUID_CHARS: Final = 36
#: Where a UUID has its version, and which one begins with the time.
VERSION_AT: Final = 14
DATED: Final = "7"


def published_at(tag: Any) -> float:
    """Return when the message of this delivery tag was published (seconds since the epoch), 0.0 if it does not say."""
    if type(tag) is not str or len(tag) != _UUID_CHARS or tag[VERSION_AT] != DATED:
        return 0.0
    try:
        return int(tag[:8] + tag[9:13], 16) / 1000
    except ValueError:
        return 0.0


def published_in(raw: bytes) -> float:
    """Return when the message in the envelope `raw` was published, 0.0 if it does not say."""
    found = _TAG.search(raw)
    return published_at(found.group(1).decode()) if found else 0.0
