"""A reader of the log that has stopped stops nobody: pipes, terminals and sockets."""

from __future__ import annotations

import os
import socket
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from qworker.core import log_outlet
from qworker.core.log_outlet import Outlet

from support import wait_until


class Ends(NamedTuple):
    """Both ends of a stream."""

    reads: int
    writes: int


@pytest.fixture(params=["pipe", "pipe that cannot be opened again", "socket", "terminal"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    if request.param == "socket":
        here, there = socket.socketpair()
        ends = Ends(here.detach(), there.detach())
    elif request.param == "terminal":
        ends = Ends(*os.openpty())
        tty.setraw(ends.writes, termios.TCSANOW)
    else:
        ends = Ends(*os.pipe())
        if "cannot" in request.param:  # as that of another user
            monkeypatch.setattr(log_outlet, "_opened_again", lambda fd: None)
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.fixture
def outlet(ends: Ends) -> Iterator[Outlet]:
    outlet = Outlet(ends.writes)
    yield outlet
    outlet.close()


@pytest.fixture
def drained(ends: Ends) -> Iterator[Callable[[bytes], bytes]]:
    """Reads on in a thread; call it for all that was read, once it ends with these bytes."""
    got, is_over = bytearray(), threading.Event()

    def drain() -> None:
        while not is_over.is_set():
            got.extend(os.read(ends.reads, 65536))

    thread = threading.Thread(target=drain)

    def drained(last: bytes) -> bytes:
        if not thread.ident:
            thread.start()
        wait_until(lambda: got.endswith(last), "all is read")
        return bytes(got)

    yield drained
    is_over.set()
    if thread.ident:
        os.write(ends.writes, b"\n")  # wakes it
        thread.join()


def fill(outlet: Outlet) -> int:
    """Write until a line is lost; returns how many were written."""
    written = 0
    while outlet.write(b"%06d %s\n" % (written, b"x" * 900)):
        written += 1
    return written


def test_lines_are_lost_once_nobody_reads_and_come_again_when_somebody_does(
    outlet: Outlet, drained: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_outlet, "_STUCK_S", 0.05)
    written = fill(outlet)
    assert written > 2
    assert outlet.lost == 1
    assert not outlet.write(b"lost too %s\n" % (b"x" * 900))
    assert outlet.lost == 2

    wait_until(lambda: drained(b"") and outlet.write(b"heard again\n"), "it takes lines again")
    lines = drained(b"heard again\n").splitlines()

    whole = [line for line in lines if line.endswith(b"x" * 900)]
    assert [int(line[:6]) for line in whole] == list(range(written))
    assert lines[-1] == b"heard again", "half a line before it does not spoil it"
    assert len(lines) - len(whole) <= 2


def test_a_stream_without_a_reader_is_waited_for_once_only(outlet: Outlet, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(outlet, "_has_room_within", lambda limit_s: waits.append(limit_s))
    monkeypatch.setattr(outlet, "_send", lambda data: _refuse())
    for _ in range(5):
        assert not outlet.write(b"a line\n")

    assert waits == [log_outlet._STUCK_S]
    assert outlet.lost == 5


def test_a_slow_reader_is_waited_for(
    ends: Ends, outlet: Outlet, drained: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_outlet, "_STUCK_S", 30.0)  # a reader that a busy machine holds up is not one that has gone
    line = b"x" * 500_000 + b"\n"  # larger than any of them
    writer = threading.Thread(target=outlet.write, args=(line,))
    writer.start()

    assert drained(b"x\n") == line
    writer.join()
    assert outlet.lost == 0


def test_who_shares_the_stream_waits_as_before(ends: Ends, outlet: Outlet) -> None:
    outlet.write(b"a line\n")

    assert os.get_blocking(ends.writes)


@pytest.mark.parametrize("ends", ["pipe", "pipe that cannot be opened again", "socket"], indirect=True)
def test_a_line_for_nobody_is_an_error_and_no_signal(outlet: Outlet, ends: Ends) -> None:
    os.dup2(ends.writes, ends.reads)  # nobody has the reading end now
    with pytest.raises(BrokenPipeError):
        outlet.write(b"a line\n")


def _refuse() -> int:
    raise BlockingIOError
