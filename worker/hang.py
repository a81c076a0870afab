"""What the master does when the consumer's thread hangs. In this order:

1. say so, with the stacks of all threads;
2. kill spawners and children, and see that they are dead;
3. give back what this worker holds, over a connection of its own and as nobody's fault (`worker/giving_back.py`);
4. start the same command anew in this very process (`worker/image.py`); or end it, when that cannot be, or has been
   done too often.

A thread cannot be ended from outside: an exception planted in it may strike between any two instructions. Exec ends it.

Nothing here takes a lock or waits without limit, because the thread that hangs may hold any lock: of an import, of the
broker's client, of a log handler. What may need one is done aside, in a thread that is given some seconds; exec and
exit end that thread as well. Called in the master's main thread.
"""

from __future__ import annotations

import _thread
import logging
import os
import select
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from ..core import log_events, logs
from ..core.errors import QWorkerError
from ..core.process import end_for_certain
from ..signals import SignalPipe, own_stacks
from .exitcodes import ExitCode
from .giving_back import names_of
from .image import MOST, WITHIN_S, Image
from .phases import STOPPING, Phase

logger = logging.getLogger("qworker.worker")

#: How long each of these may take.
_SAY_S: Final = 2.0
_KILL_S: Final = 5.0
_GIVE_BACK_S: Final = 4.0
#: Written to a pipe at once, so that a reader that has stopped cannot hold us up.
_PIECE: Final = 512


@dataclass(frozen=True, slots=True)
class Hang:
    """A consumer thread that hangs, and what has to be known of the worker to leave it behind.

    `since_s`: for how long there has been no turn. `spawners` and `children` are process ids; `are_all_known`: no child
    runs anything but those. `give_back` returns the ids of the messages that went back; it may raise QWorkerError.
    `owner`: in whose name they are held. `image` None: this process is not ours to replace.
    """

    phase: Phase
    since_s: float
    is_connecting: bool
    spawners: Sequence[int]
    children: Sequence[int]
    are_all_known: bool
    size: int
    owner: str
    give_back: Callable[[], list[str]]
    pipe: SignalPipe
    image: Image | None


def leave(hang: Hang) -> NoReturn:
    """Replace the image of this process, or end it. Never raises."""
    # A thread that hangs while it connects has not found the broker.
    code = ExitCode.UNREACHABLE if hang.is_connecting else ExitCode.INTERNAL
    try:
        _leave(hang, code)
    except Exception:  # a bug of our own: an orderly exit might wait for the thread that hangs
        _write(traceback.format_exc().encode())
    os._exit(code)


def _leave(hang: Hang, code: ExitCode) -> None:
    why_not = _why_not(hang)
    voice = _Voice()
    voice.say(_story(hang, why_not, code), with_stacks=True)
    if not (end_for_certain(hang.spawners, hang.children, _KILL_S) and hang.are_all_known):
        # It may run on. Nobody else may run the same before its time is over.
        voice.say(f"a child does not die: what is held here is left to its lease, and the worker ends with code {code}")
        return
    is_back = _give_back(hang, voice)
    if hang.image is not None and not why_not:
        _replace(hang, hang.image, "" if is_back else hang.owner, voice)


def _why_not(hang: Hang) -> str:
    """Why this process is not replaced; "" when it is."""
    if hang.phase in STOPPING:
        return "the worker was stopping already"
    if hang.image is None:
        return "this process was not started by the command line of qworker"
    if not hang.image.may_replace(time.monotonic()):
        return f"that has been done {MOST} times within {WITHIN_S / 60:g} minutes"
    return ""


def _story(hang: Hang, why_not: str, code: ExitCode) -> str:
    what = f"the consumer thread hangs: no turn for {hang.since_s:g} s, worker {hang.phase.value}"
    cut = "children are killed, and all that is held here goes back to its queue: what they run is run again"
    if why_not:
        return f"{what}. It is not replaced, because {why_not}; {cut}, and the worker ends with code {code}"
    return f"{what}. This process starts its command anew to replace it; {cut}"


def _give_back(hang: Hang, voice: _Voice) -> bool:
    """Whether the broker has everything back."""
    ids: list[str] = []
    troubles: list[str] = []

    def ask() -> None:
        try:
            ids.extend(hang.give_back())
        except QWorkerError as error:
            troubles.append(str(error))

    if not _aside(ask, _GIVE_BACK_S):
        troubles.append("no answer in time")
    if troubles:
        voice.say(f"what is held here could not be given back: {troubles[0]}")
    elif ids:
        voice.say(f"gave back {len(ids)} messages: {names_of(ids)}", logging.WARNING)
    return not troubles


def _replace(hang: Hang, image: Image, owner: str, voice: _Voice) -> None:
    # Signals are held back from here on; those that have come already go along in the pipe.
    signals, is_quiet = hang.pipe.bequeath(), hang.phase is Phase.QUIET
    try:
        image.replace(time.monotonic(), signals=signals, is_quiet=is_quiet, size=hang.size, owner=owner)
    except OSError as error:
        voice.say(f"this process cannot start its command anew ({error}) and ends")


class _Voice:
    """Speaks through the log, and past it to stderr once the log has not taken something in time."""

    def __init__(self) -> None:
        self._has_log = True

    def say(self, text: str, level: int = logging.CRITICAL, *, with_stacks: bool = False) -> None:
        texts = [text]

        def log() -> None:
            if with_stacks:
                texts[0] = f"{text}. Stacks:\n{own_stacks()}"
            logs.say(logger, level, log_events.CONSUMER_HANGS, "{problem}", problem=texts[0])

        self._has_log = self._has_log and _aside(log, _SAY_S)
        if not self._has_log:
            _write(f"qworker: {texts[0]}\n".encode())


def _write(data: bytes) -> None:
    """To stderr, as far as it can be written without waiting."""
    for at in range(0, len(data), _PIECE):
        if not select.select([], [2], [], 0)[1]:
            break
        os.write(2, data[at : at + _PIECE])


def _aside(action: Callable[[], None], limit_s: float) -> bool:
    """Do this in a thread of its own, which is left behind when it takes too long; whether it was done."""
    done = _thread.allocate_lock()  # ours alone
    done.acquire()

    def do() -> None:
        action()
        done.release()

    try:
        _thread.start_new_thread(do, ())  # not `threading`, which has locks of its own
    except RuntimeError:  # no more threads can be made
        return False
    return done.acquire(timeout=limit_s)
