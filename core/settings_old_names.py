"""The upper-case names that Celery's settings had before version 4, and what they are called now.

Called by settings.py to turn an old name into a helpful error. Most are derived; the table holds those that are not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

_IRREGULAR: Final = {
    "CELERYD_TASK_LOG_FORMAT": "worker_task_log_format",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERYD_WORKER_LOST_WAIT": "worker_lost_wait",
    "CELERY_DISABLE_RATE_LIMITS": "worker_disable_rate_limits",
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "CELERY_ENABLE_REMOTE_CONTROL": "worker_enable_remote_control",
    "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
    "CELERY_MESSAGE_COMPRESSION": "task_compression",
    "CELERY_REDIRECT_STDOUTS": "worker_redirect_stdouts",
    "CELERY_REDIRECT_STDOUTS_LEVEL": "worker_redirect_stdouts_level",
    "CELERY_RESULT_DBURI": "database_url",
    "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS": "database_short_lived_sessions",
    "CELERY_RESULT_DB_TABLENAMES": "database_table_names",
    "CELERY_RESULT_ENGINE_OPTIONS": "database_engine_options",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
    "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_WORKER_DIRECT": "worker_direct",
}

# Tried in this order: what the old prefix meant most often comes first.
_PREFIXES: Final = (
    ("CELERYBEAT_", ("beat_",)),
    ("CELERYD_", ("worker_",)),
    ("CELERY_", ("", "task_", "worker_", "broker_", "result_")),
    ("", ("",)),
)


def modern_name(old: str, known: Collection[str]) -> str | None:
    """Return today's name of the setting once called `old` (`CELERY_ACKS_LATE`), or None if none can be derived."""
    if old in _IRREGULAR:
        return _IRREGULAR[old]
    for prefix, replacements in _PREFIXES:
        if old.startswith(prefix):
            rest = old[len(prefix) :].lower()
            for candidate in (replacement + rest for replacement in replacements):
                if candidate in known:
                    return candidate
    return None
