"""Messages gone wrong in every way we could think of, with a seed, and the application that survives them."""

from .account import REASONS, account, digest, expected
from .farm import Farm, executor_in, load_app
from .made import made_messages, sound_messages
from .mutator import Mutator
from .originals import QUEUE, originals

__all__ = [
    "QUEUE",
    "REASONS",
    "Farm",
    "Mutator",
    "account",
    "digest",
    "executor_in",
    "expected",
    "load_app",
    "made_messages",
    "originals",
    "sound_messages",
]
