"""The master's end of one child's channel, with exact accounting. Owned by the consumer thread.

The kernel hands each work packet to exactly one reader, child or master: what `take_back` reads has not been started
and never will be by this child. Neither direction ever blocks the master: a packet that does not fit is kept by the
caller, and what cannot be written to talk at once waits in a buffer.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from typing import Final

from .memfile import memory_file
from .wire import PACKET, PACKET_BYTES, RECORD, SAYINGS, Say, Tell, Work, pack_exit, pack_record

_READ_AT_ONCE: Final = 256 * 1024
_WORK_BYTES: Final = 212_992
#: In a child's stack, the frames from before it was forked: the same thirty lines below every task.
_BEFORE_FORK: Final = re.compile(r'(  File "[^"]*/pool/spawner\.py", line \d+ in _in_child\n)(?:  File .*\n)+')


class Channel:
    """Work and talk sockets of the child in `slot`.

    `serial` tells this child from the slot's earlier and later ones.
    """

    def __init__(self, slot: int, serial: int) -> None:
        self.slot = slot
        self.serial = serial
        self._work, self._work_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._talk, self._talk_end = socket.socketpair()
        self._stack = memory_file("qworker-stack")  # the child's stacks, written by faulthandler
        self._stack_at = 0
        # Room for about 180 packets of a kilobyte (Linux doubles the number and counts 2.3 KB for each).
        self._work.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WORK_BYTES)
        for end in (self._work, self._talk):  # not the child's ends: the flag would be shared with the child
            end.setblocking(False)
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._buffer = bytearray(PACKET_BYTES)

    def child_ends(self) -> tuple[int, int, int]:
        """The descriptors that the child gets: work, talk, stack. Valid until `forget_child_ends`."""
        return self._work_end.fileno(), self._talk_end.fileno(), self._stack

    def forget_child_ends(self) -> None:
        """Close our copy of the child's talk end, so that its death shows as end-of-file. Once the request is sent."""
        self._talk_end.close()

    def fileno(self) -> int:
        """The talk socket, for `select`."""
        return self._talk.fileno()

    def send(self, packet: bytes) -> bool:
        """Queue one work packet for the child; False when its socket is full or the child has gone."""
        try:
            self._work.send(packet)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def send_exit(self) -> bool:
        """Ask the child to leave after what is already queued."""
        return self.send(pack_exit())

    def take_back(self) -> list[int]:
        """Read every packet the child has not read; return the sequence numbers, oldest first."""
        taken: list[int] = []
        while True:
            try:
                length = self._work_end.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionResetError):
                return taken
            if not length:
                return taken
            kind, seq, _, _ = PACKET.unpack_from(self._buffer)
            if kind != Work.EXIT:
                taken.append(seq)

    def tell(self, kind: Tell, seq: int, payload: bytes = b"") -> None:
        """Answer the child over talk; what does not fit now is sent by later `flush` calls."""
        self._outgoing += pack_record(kind, seq, payload)
        self.flush()

    @property
    def has_backlog(self) -> bool:
        """Whether something waits for the child to read: `flush` when the socket is writable."""
        return bool(self._outgoing)

    def flush(self) -> None:
        """Send what is waiting for the child, as far as it fits."""
        while self._outgoing:
            try:
                sent = self._talk.send(self._outgoing)
            except BlockingIOError:
                return
            except OSError:  # the child has gone: what it was told does not matter any more
                self._outgoing.clear()
                return
            del self._outgoing[:sent]

    def records(self) -> Iterator[tuple[Say, int, bytes]]:
        """Every complete record that has arrived: kind, sequence number, payload.

        Raises EOFError after the last one of a gone child.
        """
        gone = self._read()
        at = 0
        incoming = self._incoming
        size = len(incoming)
        try:
            while size - at >= RECORD.size:
                length, kind, seq = RECORD.unpack_from(incoming, at)
                end = at + RECORD.size + length
                if end > size:
                    break
                payload = bytes(incoming[at + RECORD.size : end])
                at = end
                yield SAYINGS[kind], seq, payload
        finally:
            del incoming[:at]
        if gone:
            raise EOFError(f"child {self.slot + 1} has closed its channel")

    def stack(self) -> str:
        """What the child has written about its stacks since the last call: when asked to, or dying of a fault."""
        text = os.pread(self._stack, _READ_AT_ONCE, self._stack_at)
        self._stack_at += len(text)
        return _BEFORE_FORK.sub(r"\1", text.decode("utf-8", "replace"))

    def has_news(self) -> bool:
        """Whether something that the child has said, or its end, has not been read yet. Never waits."""
        try:
            self._talk.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _read(self) -> bool:
        """Read what there is, at most one buffer's worth: other children wait too."""
        try:
            data = self._talk.recv(_READ_AT_ONCE)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._incoming += data
        return not data

    def close(self) -> None:
        """Close every socket. The kernel drops unread packets: take them back first."""
        for end in (self._work, self._work_end, self._talk, self._talk_end):
            end.close()
        if self._stack >= 0:
            os.close(self._stack)
            self._stack = -1
