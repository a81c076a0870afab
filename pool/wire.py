"""The bytes between master and child. Both ends are always the same installation, so there is no version to negotiate.

Work packets (master → child, SOCK_SEQPACKET, one message each):

    kind u8 · seq u64 · crashes u16 · queue length u16 · queue · envelope          kind TASK
    kind u8 · seq u64 · crashes u16 · queue length u16 · queue                     kind LARGE: ask for it with FETCH
    kind u8 · zeros                                                                kind EXIT: leave now

Talk records, child → master (SOCK_STREAM): length u32 · kind u8 · seq u64 · payload (length counts the payload only).
Talk records, master → child: the same shape with other kinds.

DONE payload: action u8 · flags u8 · ending u8 · busy f64 (seconds) · wait f32 · processor time f32 · peak u32 (KiB) ·
name length u16 · id length u16 · meta length u32 · extra length u32 · task name · id · meta · extra. `extra` is JSON
and rare: successors, dead-letter reason, due time.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import Final

from ..tasks import NOTHING, Action, Outcome
from ..transports import Envelope

PACKET: Final = struct.Struct("<BQHH")
RECORD: Final = struct.Struct("<IBQ")
DONE: Final = struct.Struct("<BBBdffIHHII")
_LIMITS: Final = struct.Struct("<dd??")

#: Above this an envelope is announced instead of sent: a few packets must fit the socket's default buffer (208 KiB on
#: Linux).
LARGE_BYTES: Final = 32 * 1024
#: The longest work packet: header, queue name, envelope.
PACKET_BYTES: Final = LARGE_BYTES + PACKET.size + 65536


class Work(IntEnum):
    """Kinds of work packets."""

    TASK = 1
    LARGE = 2
    EXIT = 3


class Say(IntEnum):
    """Kinds of talk records, child to master."""

    READY = 1  # with the child's own memory in KiB, as digits, if that is asked for
    BOOT_FAILED = 2
    BEGIN = 3
    FETCH = 4
    DONE = 5
    STATE = 6
    ASK = 7  # may I start this? the lease was not certain any more
    LIMITS = 8  # what I start now has time limits
    CHECKPOINT = 9  # what is to replace the message that I run, should I be killed


class Tell(IntEnum):
    """Kinds of talk records, master to child."""

    GO = 1
    NO = 2
    PAYLOAD = 3


#: By number, because looking up an enum member by calling its class costs 0.4 µs, twice a message.
_ACTIONS: Final = tuple(Action)
SAYINGS: Final = (Say.READY, *Say)  # kinds count from 1
_TASK: Final = int(Work.TASK)
_DONE: Final = int(Say.DONE)
_HAS_RESULT: Final = 1
_IS_SUCCESS: Final = 2


def pack_task(seq: int, crashes: int, queue: bytes, raw: bytes) -> bytes:
    """The work packet for one message; LARGE when the envelope must travel over talk."""
    if len(raw) > LARGE_BYTES:
        return PACKET.pack(Work.LARGE, seq, min(crashes, 65535), len(queue)) + queue
    return PACKET.pack(_TASK, seq, crashes if crashes < 65535 else 65535, len(queue)) + queue + raw


def pack_exit() -> bytes:
    """The work packet that ends a child."""
    return PACKET.pack(Work.EXIT, 0, 0, 0)


def pack_record(kind: int, seq: int, payload: bytes = b"") -> bytes:
    """One talk record."""
    return RECORD.pack(len(payload), kind, seq) + payload


def pack_outcome(seq: int, outcome: Outcome) -> bytes:
    """The DONE record for one run."""
    task_id = outcome.task_id.encode("utf-8", "surrogatepass")
    meta = outcome.meta
    flags = (0 if meta is None else _HAS_RESULT) | (_IS_SUCCESS if outcome.is_success else 0)
    extra = _pack_extra(outcome) if _is_rare(outcome) else b""
    body = meta or b""
    task = outcome.task
    head = DONE.pack(
        outcome.action,
        flags,
        outcome.ending,
        outcome.busy_s,
        outcome.wait_s,
        outcome.cpu_s,
        outcome.peak_kib,
        len(task),
        len(task_id),
        len(body),
        len(extra),
    )
    length = len(head) + len(task) + len(task_id) + len(body) + len(extra)
    return b"".join((RECORD.pack(length, _DONE, seq), head, task, task_id, body, extra))


def unpack_outcome(payload: memoryview | bytes) -> Outcome:
    """Read a DONE payload."""
    (
        action,
        flags,
        ending,
        busy_s,
        wait_s,
        cpu_s,
        peak_kib,
        name_length,
        id_length,
        meta_length,
        extra_length,
    ) = DONE.unpack_from(payload)
    start = DONE.size + name_length
    task = bytes(payload[DONE.size : start])
    task_id = str(payload[start : start + id_length], "utf-8", "surrogatepass")
    start += id_length
    meta = bytes(payload[start : start + meta_length]) if flags & _HAS_RESULT else None
    is_success = bool(flags & _IS_SUCCESS)
    # By position, which is faster than by name.
    outcome = Outcome(
        _ACTIONS[action], task_id, meta, is_success, busy_s,
        (), "", NOTHING, None, (), ending, task, wait_s, cpu_s, peak_kib,
    )  # fmt: skip
    if extra_length:
        start += meta_length
        _unpack_extra(outcome, bytes(payload[start : start + extra_length]))
    return outcome


def pack_limits(seq: int, soft_s: float | None, hard_s: float | None, acks_on_timeout: bool, stores: bool) -> bytes:
    """The LIMITS record: seconds from its start that a run may take."""
    return pack_record(Say.LIMITS, seq, _LIMITS.pack(soft_s or 0.0, hard_s or 0.0, acks_on_timeout, stores))


def unpack_limits(payload: bytes) -> tuple[float, float, bool, bool]:
    """Read a LIMITS payload: soft and hard limit (0 = none), is a time-out acked, is its result stored."""
    soft_s, hard_s, acks_on_timeout, stores = _LIMITS.unpack(payload)
    return soft_s, hard_s, acks_on_timeout, stores


def pack_checkpoint(seq: int, priority: int, raw: bytes) -> bytes:
    """The CHECKPOINT record: the envelope that replaces message `seq` if its run is cut. `priority` is 0 to 255."""
    return pack_record(Say.CHECKPOINT, seq, bytes((priority,)) + raw)


def unpack_checkpoint(payload: bytes) -> tuple[int, bytes]:
    """Read a CHECKPOINT payload: priority and envelope."""
    return payload[0], payload[1:]


def pack_state(seq: int, task_id: str, meta: bytes) -> bytes:
    """The STATE record: a result to store while the task goes on (`update_state`, STARTED)."""
    name = task_id.encode("utf-8", "surrogatepass")
    return pack_record(Say.STATE, seq, struct.pack("<H", len(name)) + name + meta)


def unpack_state(payload: memoryview | bytes) -> tuple[str, bytes]:
    """Read a STATE payload: task id and meta."""
    (length,) = struct.unpack_from("<H", payload)
    return str(payload[2 : 2 + length], "utf-8", "surrogatepass"), bytes(payload[2 + length :])


def _is_rare(outcome: Outcome) -> bool:
    return bool(outcome.successors or outcome.reason or outcome.others or outcome.due is not None)


def _pack_extra(outcome: Outcome) -> bytes:
    successors = [
        (e.queue, e.raw.decode(), e.priority, e.due, e.front, e.task_id, e.unique) for e in outcome.successors
    ]
    others = [(task_id, meta.decode()) for task_id, meta in outcome.others]
    extra = {
        "next": successors,
        "reason": outcome.reason,
        "details": dict(outcome.details),
        "due": outcome.due,
        "others": others,
    }
    return json.dumps(extra, default=repr).encode()


def _unpack_extra(outcome: Outcome, extra: bytes) -> None:
    data = json.loads(extra)
    outcome.successors = tuple(Envelope(queue, raw.encode(), *rest) for queue, raw, *rest in data["next"])
    outcome.reason = data["reason"]
    outcome.details = data["details"]
    outcome.due = data["due"]
    outcome.others = tuple((task_id, meta.encode()) for task_id, meta in data["others"])
