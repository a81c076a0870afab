"""systemd: what a service tells it (`notify`), and the unit files that tell it how to run one (`units`)."""

from .notify import Notifier, environment, take

__all__ = ["Notifier", "environment", "take"]
