"""What stands on an SQS queue: messages in every writing that producers use, or get wrong, and odd attributes."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from qworker.transports.sqs_wire import decode_body

#: What SQS takes as text.
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ENCODING = {"qworker.encoding": {"DataType": "String", "StringValue": "base64"}}
_ODD_NUMBERS = ("", "abc", "-7", "1e3", "0x10", "½", "NaN", " 2 ", "1" * 5000)


class Body(NamedTuple):
    """One message as it stands on the queue. `raw` is what a worker reads in it."""

    text: str
    attributes: dict[str, dict[str, Any]]

    @property
    def raw(self) -> bytes:
        return decode_body(self.text, is_base64="qworker.encoding" in self.attributes)


def bodies(raws: Sequence[bytes], seed: int) -> list[Body]:
    """One for each message, written in some way."""
    rng = random.Random(seed)
    return [Body(_written(raw, rng), _attributes(rng)) for raw in raws]


def _written(raw: bytes, rng: random.Random) -> str:
    usual = base64.b64encode(raw).decode() or "-"
    way = rng.random()
    if way < 0.4:
        return usual
    if way < 0.6:
        text = raw.decode(errors="ignore")
        return _UNFIT.sub("", text) or "-"
    if way < 0.7:
        return base64.b64encode(usual.encode()).decode()
    if way < 0.75:
        return base64.urlsafe_b64encode(raw).decode() or "-"
    if way < 0.8:
        return base64.encodebytes(raw).decode() or "-"
    if way < 0.9:
        return usual[: rng.randrange(1, len(usual) + 1)]
    at = rng.randrange(len(usual))
    return usual[:at] + rng.choice(("=", "\n", "ü", "\ufffd", "{", "-")) + usual[at:]


def _attributes(rng: random.Random) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    if rng.random() < 0.3:
        found |= _ENCODING
    if rng.random() < 0.2:
        name = rng.choice(("qworker.crashes", "qworker.attempts"))
        value = rng.choice(_ODD_NUMBERS)
        found[name] = {"DataType": "String", "StringValue": value or "-"}
    if rng.random() < 0.1:
        found["qworker.crashes"] = {"DataType": "Binary", "BinaryValue": b"\x00\xff"}
    for number in range(rng.choice((0, 0, 0, 3, 7))):
        found[f"own.{number}"] = {"DataType": "String", "StringValue": "x" * 50}
    return found
