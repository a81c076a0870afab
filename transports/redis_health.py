"""What may be wrong with a Redis server although it answers: unfit for a broker, or set up so that messages get lost.

`refuse_unfit` is called by the session when a worker connects, `warnings_of` by the transport's verb `warnings`.
Managed servers often refuse CONFIG: then INFO has to do, and what it does not tell is not warned about.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import hiredis

from .redis_link import Command
from .redis_refusals import Denied

_OLDEST: Final = (6, 2)

Ask = Callable[..., list[Any]]


def refuse_unfit(server: Any, shown: str) -> None:
    """Raise Denied when `server`, the reply of INFO SERVER, is too old or a cluster's; a refused INFO says nothing."""
    info = _fields(server)
    version = info.get("redis_version", "")
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if info.get("redis_mode") == "cluster":
        raise Denied(f"{shown} is a node of a Redis Cluster, which is not supported; use a single server or Sentinel")
    if numbers and numbers < _OLDEST:
        raise Denied(f"{shown} is Redis {version}, which is too old; use Redis 6.2 or later, or Valkey")


def warnings_of(ask: Ask, shown: str) -> list[str]:
    """Return one sentence for each setting of the server by which messages can get lost. Raises TransportError.

    `ask` sends commands and returns the replies, refusals among them.
    """
    questions: list[Command] = [("INFO", "memory"), ("INFO", "persistence")]
    questions += [("CONFIG", "GET", name) for name in ("save", "appendfsync")]
    memory, persistence, save, fsync = ask(*questions)
    found = [_eviction(_fields(memory)), _persistence(_fields(persistence), _setting(save), _setting(fsync))]
    return [f"{shown}: {text}" for text in found if text]


def _eviction(memory: dict[str, str]) -> str:
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        return (
            f"maxmemory-policy is {policy}: when its memory is full it deletes whole queues and running messages, "
            "and nobody is told; set maxmemory-policy noeviction"
        )
    if policy.startswith("volatile"):
        return (
            f"maxmemory-policy is {policy}: when its memory is full it deletes stored results before they expire "
            "(queues and messages stay); set maxmemory-policy noeviction"
        )
    return ""


def _persistence(info: dict[str, str], save: str | None, fsync: str | None) -> str:
    if info.get("aof_enabled") == "0" and save == "":
        return (
            "it writes nothing to disk (no append-only file, no snapshots): its next restart or crash loses every "
            "message; set appendonly yes"
        )
    if info.get("aof_enabled") == "1" and fsync == "no":
        return (
            "it lets the kernel decide when its append-only file reaches the disk (appendfsync no): a power cut loses "
            "the messages of half a minute; set appendfsync everysec"
        )
    return ""


def _fields(reply: Any) -> dict[str, str]:
    """INFO's lines as a dict; empty for a refusal."""
    if isinstance(reply, hiredis.ReplyError):
        return {}
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _setting(reply: Any) -> str | None:
    """The value that CONFIG GET tells, None when it does not."""
    if isinstance(reply, hiredis.ReplyError) or len(reply) != 2:
        return None
    return str(reply[1].decode("utf-8", "replace"))
