"""Operating-system signals become events: a self-pipe to wait on, and masks around fork."""

from .mask import blocked
from .pipe import SignalPipe
from .quiet import GROUP_SIGNALS, ignore_group_signals
from .stacks import dump_stacks, offer_stacks

__all__ = ["GROUP_SIGNALS", "SignalPipe", "blocked", "dump_stacks", "ignore_group_signals", "offer_stacks"]
