"""Messages gone wrong in every way we could think of, with a seed, and the application that survives them."""

from .made import made_messages
from .mutator import Mutator
from .originals import originals

__all__ = ["Mutator", "made_messages", "originals"]
