"""Values that have no business where the mutator puts them: wrong types, huge numbers, texts that are no texts.

`Raw` stands for JSON text that `json.dumps` would not write (deep nesting, doubled keys, numbers too long to print).
"""

from __future__ import annotations

import bz2
import lzma
import random
import zlib
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

BOMB_BYTES = 4_000_000  # the fuzzed application takes messages of a tenth of that


class Raw(str):
    """JSON text to be written as it is."""


_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 65536, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**40,
    10**400, 0.5, -0.5, 1e-9, 5e-324, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), Raw("1e400"), Raw("-0"),
    Raw("9" * 5000), Raw("1." + "0" * 5000),
    "", " ", "0", "a", "None", "null", "\x00", "a\x00b", "\n", "line\nforged", "\x1b[31m", "\x85", "\u2028",
    "\ud800", "\udfff\ud800", "a\udc80", "ü", "漢字", "💩", "\ufeff", "x" * 300, "ü" * 999, "x" * 5000, "%s%d{}",
    "../../etc/passwd", "celery", "fuzz", "unacked", "unacked_index", "qworker:leases", "qworker:held:", "a:0:0:b",
    [], [[]], [None], ["a"], [1, 2, 3], {}, {"": ""}, {"a": {}}, [{}], [[[[[[[[[[]]]]]]]]]],
    {"__type__": "datetime", "__value__": "2026-01-01T00:00:00"}, {"__type__": "uuid", "__value__": {"hex": "0" * 32}},
    {"__type__": "uuid", "__value__": 5}, {"__type__": "decimal", "__value__": "1e999999"},
    {"__type__": "decimal", "__value__": "sNaN"}, {"__type__": "base64", "__value__": "////"},
    {"__type__": "bytes", "__value__": "\ud800"}, {"__type__": "nothing", "__value__": 1},
    {"__type__": [], "__value__": 1}, Raw('{"a": 1, "a": 2}'), Raw('{"__type__": "bytes"}'), Raw("nul"), Raw(""),
)  # fmt: skip

_TIMES: tuple[Any, ...] = (
    "9999-12-31T23:59:59.999999", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00",
    "2026-02-30T00:00:00", "2026-11-21T24:00:00", "2026-11-21T00:00:00+99:99", "2026-11-21", "20261121", "2026-W47-6",
    "12:00", "soon", "1e9", 1e9, "2026-11-21T00:00:00,5", "２０２６-11-21T00:00:00", "1970-01-01T00:00:00Z",
    "2026-11-21T00:00:00.1234567890123Z",
)  # fmt: skip

_LIMITS: tuple[Any, ...] = (
    [10**400, 10**400], [1e308, 1e308], [float("inf"), float("inf")], [float("nan"), 1.0], [0, 0], [-1, -1],
    ["1", "2"], [[], {}], [True, True], [None], [1, 2, 3], {"a": 1}, [3600, 2**64], [2**64, None], "ab",
    [None, 10**400],
)  # fmt: skip

_ENCODINGS: tuple[Any, ...] = (
    "utf-8", "binary", "utf-16", "utf-32", "utf-7", "utf-8-sig", "latin-1", "ascii", "us-ascii", "cp1252", "UTF8",
    "undefined", "punycode", "idna", "unicode_escape", "raw_unicode_escape", "hex", "base64", "zlib", "rot13", "mbcs",
    "utf\x00-8", "\ud800", "no-such", "x" * 5000, "../utf-8", "utf-8\n",
)  # fmt: skip

_TYPES: tuple[Any, ...] = (
    "application/json", "application/x-yaml", "application/x-msgpack", "application/x-python-serialize", "json",
    "application/data", "text/plain", "APPLICATION/JSON", "application/json; charset=utf-8",
)  # fmt: skip

_COMPRESSIONS: tuple[Any, ...] = (
    "application/x-gzip", "application/x-bz2", "application/x-lzma", "application/zstd", "application/x-brotli",
    "gzip", "zlib", "none",
)  # fmt: skip

_SPECIAL: dict[str, tuple[Any, ...]] = {
    "eta": _TIMES, "expires": _TIMES, "timelimit": _LIMITS, "content-encoding": _ENCODINGS, "content-type": _TYPES,
    "compression": _COMPRESSIONS, "body_encoding": ("base64", "BASE64", "hex", "utf-8"),
    "subtask_type": ("chain", "group", "chord", "map", "chunks", "nothing"),
    "task": ("celery.chain", "celery.group", "celery.chord", "celery.map", "celery.starmap", "celery.backend_cleanup",
             "wapp.add", "wapp.once", "wapp.flaky", "wapp.boom", "no.such"),
}  # fmt: skip

#: Headers, properties, embedded parts and options that the code reads, to be put where they do not stand.
NAMES = (
    "task", "id", "eta", "expires", "retries", "timelimit", "group", "group_index", "root_id", "parent_id", "shadow",
    "compression", "ignore_result", "replaced_task_nesting", "stamps", "stamped_headers", "redelivered", "unique",
    "unique_for", "qworker_checkpoint", "taskset", "utc", "args", "kwargs", "callbacks", "errbacks", "chain", "chord",
    "body", "headers", "properties", "content-type", "content-encoding", "body_encoding", "delivery_tag",
    "delivery_info",
    "routing_key", "exchange", "priority", "correlation_id", "reply_to", "expiration", "queue", "countdown", "task_id",
    "link", "link_error", "serializer", "options", "subtask_type", "immutable", "tasks", "time_limit", "origin",
    "soft_time_limit", "group_id", "argsrepr", "lang", "__type__", "__value__",
)  # fmt: skip


def odd_value(name: str, rng: random.Random) -> Any:
    """Something for the place called `name`: half the time what is odd there, else what is odd anywhere."""
    special = _SPECIAL.get(name)
    if special and rng.random() < 0.6:
        return deepcopy(rng.choice(special))
    if name in ("callbacks", "errbacks", "chain", "tasks", "link", "link_error") and rng.random() < 0.7:
        return [odd_signature(rng) for _ in range(rng.randint(1, 3))]
    if name == "chord" and rng.random() < 0.5:
        return odd_signature(rng)
    if rng.random() < 0.1:
        return nested(rng)
    return deepcopy(rng.choice(_ODD))  # the mutator may go on inside of it


def odd_signature(rng: random.Random, levels: int = 2) -> Any:
    """A signature with up to three things wrong."""
    members = [odd_signature(rng, levels - 1) for _ in range(rng.randint(0, 2))] if levels else []
    kind = rng.choice([None, None, "group", "chain"])
    signature: dict[str, Any] = {
        "task": rng.choice(_SPECIAL["task"]) if kind is None else f"celery.{kind}",
        "args": [1],
        "kwargs": {"tasks": members} if kind else {},
        "options": {"task_id": f"next-{rng.randrange(10**6)}"},
        "subtask_type": kind,
        "immutable": rng.random() < 0.3,
    }
    for _ in range(rng.randint(0, 3)):
        place = rng.choice([*signature, "options", "options"])
        if place == "options" and isinstance(signature["options"], dict) and rng.random() < 0.8:
            option = rng.choice(NAMES)
            signature["options"][option] = odd_value(option if levels else "", rng)
        else:
            signature[place] = odd_value(place if levels else "", rng)
    return signature


def nested(rng: random.Random) -> Raw:
    """Lists or objects inside one another, often about as deep as the interpreter just bears."""
    depth = rng.choice([50, 400, rng.randint(900, 1100), rng.randint(450, 520), 20_000])
    if rng.random() < 0.5:
        return Raw("[" * depth + "]" * depth)
    return Raw('{"a":' * depth + "1" + "}" * depth)


_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
}


def packed(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A compression's name, and `data` packed by it: rightly, or as another one would, or cut off."""
    name, pack = rng.choice(list(_PACKERS.items()))
    result = pack(data)
    damage = rng.random()
    if damage < 0.2:
        return rng.choice(_COMPRESSIONS), result
    return name, result[: rng.randrange(len(result))] if damage < 0.4 else result


@cache
def _bombs() -> tuple[tuple[str, bytes], ...]:
    data = b"[" + b" " * BOMB_BYTES + b"[], {}, {}]"
    return tuple((name, pack(data)) for name, pack in _PACKERS.items())


def bomb(rng: random.Random) -> tuple[str, bytes]:
    """A compression's name, and a few bytes that unpack to far more than a message may have."""
    return rng.choice(_bombs())
