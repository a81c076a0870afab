"""The captures of Celery's traffic in tests/samples: loaded, and compared without what is random."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
_TAG = re.compile(rb'"delivery_tag": "[0-9a-f-]{36}"')


def load(number: str) -> Any:
    """The data of the capture whose file name begins with `number`."""
    (path,) = SAMPLES.glob(f"{number}_*.json")
    return json.loads(path.read_text("utf-8"))["data"]


def published(number: str) -> Iterator[tuple[str, bytes]]:
    """Each (call, envelope) that a Celery producer wrote in that capture."""
    for entry in load(number):
        for message in entry.get("published", ()):
            if "raw" in message:
                yield entry["call"], message["raw"].encode()


def pushed(number: str) -> list[bytes]:
    """The envelopes that were pushed to queues in that monitor capture, in order."""
    data = load(number)
    commands = data["commands"] if isinstance(data, dict) else data
    return [line["cmd"][2].encode() for line in commands if line["cmd"][0] == "LPUSH"]


def stored(number: str) -> list[bytes]:
    """The results that were stored in that monitor capture, in order."""
    data = load(number)
    commands = data["commands"] if isinstance(data, dict) else data
    return [line["cmd"][3].encode() for line in commands if line["cmd"][0] == "SETEX"]


def without_tag(raw: bytes) -> bytes:
    """The envelope with its random delivery tag replaced."""
    return _TAG.sub(b'"delivery_tag": "TAG"', raw)
