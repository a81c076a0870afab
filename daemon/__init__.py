"""A worker's place on its machine: in the background, under its own user, with a pid file and a log file of its own.

Called by the command line, which wraps the worker's whole life in `settled`; standard library only.
"""

from .identity import Identity
from .pidfile import Pidfile
from .setup import Wish, carried_over, settled

__all__ = ["Identity", "Pidfile", "Wish", "carried_over", "settled"]
