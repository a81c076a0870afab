"""systemd: what a service tells it (`notify`), and the unit files that tell it how to run one (`units`)."""

from .notify import Notifier, environment, take
from .units import Service, service_unit, shipped, template_unit

__all__ = ["Notifier", "Service", "environment", "service_unit", "shipped", "take", "template_unit"]
