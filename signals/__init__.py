"""Operating-system signals become events: a self-pipe to wait on, and masks around fork."""

from .alarms import forget_alarm
from .mask import blocked
from .orphans import reap_strangers
from .pipe import SignalPipe
from .quiet import GROUP_SIGNALS, ignore_group_signals, spare_forks
from .stacks import keep_offering, offer_stacks, own_stacks

__all__ = [
    "GROUP_SIGNALS",
    "SignalPipe",
    "blocked",
    "forget_alarm",
    "ignore_group_signals",
    "keep_offering",
    "offer_stacks",
    "own_stacks",
    "reap_strangers",
    "spare_forks",
]
