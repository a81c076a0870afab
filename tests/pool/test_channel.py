"""The channel's accounting: the kernel gives each packet to exactly one reader, and words outlive their speaker."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from qworker.pool import Channel, Say, Tell, pack_task
from qworker.pool.wire import LARGE_BYTES, PACKET, RECORD, Work, pack_outcome, pack_record, unpack_outcome
from qworker.tasks import Action, Outcome
from qworker.transports import Envelope


class Ends:
    """A channel and the sockets that its child would have."""

    def __init__(self) -> None:
        self.channel = Channel(0, 1)
        work, talk, _ = self.channel.child_ends()
        self.work = socket.socket(fileno=os.dup(work))
        self.talk = socket.socket(fileno=os.dup(talk))
        self.channel.forget_child_ends()

    def read(self) -> int:
        packet = self.work.recv(65536, socket.MSG_DONTWAIT)
        return int(PACKET.unpack_from(packet)[1])


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.channel.close()
    ends.work.close()
    ends.talk.close()


def test_a_packet_that_the_child_has_read_cannot_be_taken_back(ends: Ends) -> None:
    for seq in (1, 2, 3):
        ends.channel.send(pack_task(seq, 0, b"q", b"{}"))
    assert ends.read() == 1
    assert ends.channel.take_back() == [2, 3]
    with pytest.raises(BlockingIOError):
        ends.read()


def test_unread_packets_are_taken_back_from_a_child_that_is_gone(ends: Ends) -> None:
    ends.channel.send(pack_task(7, 0, b"q", b"{}"))
    ends.work.close()
    assert ends.channel.take_back() == [7]


def test_sending_to_a_full_channel_fails_without_blocking_and_loses_nothing(ends: Ends) -> None:
    sent = 0
    while ends.channel.send(pack_task(sent + 1, 0, b"q", b"x" * LARGE_BYTES)):
        sent += 1
    assert sent >= 2
    assert ends.channel.take_back() == list(range(1, sent + 1))


def test_the_last_words_of_a_dead_child_are_heard_and_a_torn_one_is_not(ends: Ends) -> None:
    whole = pack_outcome(5, Outcome(task_id="a"))
    ends.talk.sendall(whole + whole[:-1])
    ends.talk.close()
    heard = []

    def listen() -> None:
        while True:
            heard.extend((kind, seq) for kind, seq, _ in ends.channel.records())

    with pytest.raises(EOFError):
        listen()
    assert heard == [(Say.DONE, 5)]


def test_a_large_answer_is_sent_in_pieces_without_blocking(ends: Ends) -> None:
    payload = os.urandom(3_000_000)
    ends.channel.tell(Tell.PAYLOAD, 9, payload)
    received = bytearray()
    while len(received) < RECORD.size + len(payload):
        ends.channel.flush()
        received += ends.talk.recv(1 << 20)
    assert RECORD.unpack_from(received) == (len(payload), Tell.PAYLOAD, 9)
    assert received[RECORD.size :] == payload


def test_a_large_envelope_is_announced_instead_of_sent() -> None:
    packet = pack_task(1, 2, b"queue", b"x" * (LARGE_BYTES + 1))
    assert PACKET.unpack_from(packet)[:3] == (Work.LARGE, 1, 2)
    assert len(packet) < 100


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(),
        Outcome(Action.ACK, "id-é", b'{"status": "SUCCESS"}', True, 0.25),
        Outcome(Action.ACK, "id", b"", False),
        Outcome(Action.PARK, "id", due=12.5),
        Outcome(Action.REJECT, "id", b"{}", reason="unknown_task", details={"task": "x", "n": 1}),
        Outcome(successors=(Envelope("q", b'{"a": 1}', 3, 17.25), Envelope("r", b"{}"))),
    ],
)
def test_an_outcome_survives_the_way_to_the_master(outcome: Outcome) -> None:
    record = pack_outcome(3, outcome)
    assert RECORD.unpack_from(record) == (len(record) - RECORD.size, Say.DONE, 3)
    assert unpack_outcome(memoryview(record)[RECORD.size :]) == outcome


def test_records_that_arrive_in_pieces_are_put_together(ends: Ends) -> None:
    record = pack_record(Say.BEGIN, 4, b"abc")
    for byte in record[:-1]:
        ends.talk.sendall(bytes([byte]))
        assert list(ends.channel.records()) == []
    ends.talk.sendall(record[-1:])
    assert list(ends.channel.records()) == [(Say.BEGIN, 4, b"abc")]
