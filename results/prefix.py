"""What stands before every key of a result: `result_backend_transport_options={'global_keyprefix': …}`, as Celery's."""

from __future__ import annotations

from .base import SettingsLike


def global_prefix(settings: SettingsLike) -> str:
    """Return the prefix, with the underscore that Celery puts after a word; empty when there is none."""
    options = settings.get("result_backend_transport_options") or {}
    prefix = str(options.get("global_keyprefix") or "")
    return prefix if not prefix or prefix.endswith((":", "_", "-", ".")) else prefix + "_"
