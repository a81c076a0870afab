"""Children and the spawner that forks them, the channels to them, and how far ahead to work."""

from .channel import Channel
from .child import Executor, Job, Runtime
from .handle import SpawnerHandle
from .pace import Pace
from .slots import MAX_SLOTS, TABLE_SLOTS, Running, SlotTable
from .spawner import Boot
from .titles import set_title
from .wire import Say, Tell, pack_exit, pack_task, unpack_checkpoint, unpack_limits, unpack_outcome, unpack_state

__all__ = [
    "MAX_SLOTS",
    "TABLE_SLOTS",
    "Boot",
    "Channel",
    "Executor",
    "Job",
    "Pace",
    "Running",
    "Runtime",
    "Say",
    "SlotTable",
    "SpawnerHandle",
    "Tell",
    "pack_exit",
    "pack_task",
    "set_title",
    "unpack_checkpoint",
    "unpack_limits",
    "unpack_outcome",
    "unpack_state",
]
