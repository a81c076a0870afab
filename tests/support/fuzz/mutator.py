"""Mutates messages, each in one to four places, in its meaning or its bytes. The same seed gives the same messages."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from typing import Any

from .oddities import NAMES, Raw, bomb, nested, odd_value, packed
from .originals import originals

_MARK = "\ufdd0raw{}\ufdd0"  # stands for a Raw until the JSON is text

_INTRUDERS = (
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"',
    b"\\",
    b"\\u0000",
    b"{",
    b"]",
    b"1e999",
    b"\n",
    b"\xef\xbb\xbf",
)


class Mutator:
    """`message()` gives one more. `base` are the messages that get mutated."""

    def __init__(self, seed: int, base: Sequence[bytes] = ()) -> None:
        self._rng = random.Random(seed)
        self._base = base or originals()

    def messages(self, count: int) -> list[bytes]:
        """So many of them."""
        return [self.message() for _ in range(count)]

    def message(self) -> bytes:
        """One original, changed."""
        rng = self._rng
        raw = rng.choice(self._base)
        if rng.random() < 0.75:
            raw = self._changed(raw)
        if rng.random() < 0.2:
            raw = self._damaged(raw)
        return raw

    # ---- the meaning ----

    def _changed(self, raw: bytes) -> bytes:
        rng = self._rng
        envelope = json.loads(raw)
        body = _read_body(envelope)
        for _ in range(rng.randint(1, 3)):
            if body is not None and rng.random() < 0.55:
                body = self._in_body(body)
            else:
                envelope = self._in_envelope(envelope)
        if not isinstance(envelope, dict):
            return _text(envelope)
        if body is not None:
            self._write_body(envelope, _text(body))
        return _text(envelope)

    def _in_envelope(self, envelope: Any) -> Any:
        place = self._rng.choice(["headers", "headers", "headers", "properties", ""])
        if place and isinstance(envelope, dict) and isinstance(envelope.get(place), dict):
            envelope[place] = self._anywhere(envelope[place], place, 0.0)
            return envelope
        return self._anywhere(envelope, "envelope", 0.02)

    def _in_body(self, body: Any) -> Any:
        rng = self._rng
        if rng.random() < 0.4 and isinstance(body, list) and len(body) == 3 and isinstance(body[2], dict):
            name = rng.choice(["callbacks", "errbacks", "chain", "chain", "chord"])
            body[2][name] = odd_value(name, rng)
            return body
        if rng.random() < 0.1 and isinstance(body, list) and len(body) == 3:
            parts = body[2] if isinstance(body[2], dict) else {}
            return {"task": "wapp.ident", "id": "made-1", "args": body[0], "kwargs": body[1], **parts}
        return self._anywhere(body, "body", 0.03)

    def _anywhere(self, value: Any, name: str, here: float) -> Any:
        """Change something in `value`, at any depth; `value` itself with the probability `here`."""
        rng = self._rng
        if not isinstance(value, dict | list) or not value or rng.random() < here:
            return odd_value(name, rng)
        if isinstance(value, list):
            return self._in_list(value, name)
        if rng.random() < 0.25:
            key = rng.choice(NAMES)
            value[key] = odd_value(key, rng)
            return value
        key = rng.choice(list(value))
        if rng.random() < 0.12:
            moved = value.pop(key)
            if rng.random() < 0.5:
                value[rng.choice(NAMES)] = moved
            return value
        value[key] = self._anywhere(value[key], key, 0.5)
        return value

    def _in_list(self, value: list[Any], name: str) -> list[Any]:
        rng = self._rng
        at = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.15:
            del value[at]
        elif kind < 0.3:
            value.insert(at, value[at])
        elif kind < 0.4:
            value.insert(at, odd_value(name, rng))
        else:
            value[at] = self._anywhere(value[at], name, 0.4)
        return value

    def _write_body(self, envelope: dict[str, Any], data: bytes) -> None:
        rng = self._rng
        kind = rng.random()
        headers = envelope.get("headers")
        if isinstance(headers, dict) and kind < 0.12:
            headers["compression"], data = bomb(rng) if kind < 0.02 else packed(data, rng)
        elif isinstance(headers, dict) and kind < 0.8:
            headers.pop("compression", None)
        if kind > 0.97:
            data = b" " * rng.choice([100_000, 500_000]) + data
        text = base64.b64encode(data).decode()
        if kind < 0.85:
            envelope["body"] = text
        elif kind < 0.88:
            envelope["body"] = self._broken(text)
        elif kind < 0.93:
            envelope["body"] = data.decode("utf-8", "surrogateescape")
            if isinstance(envelope.get("properties"), dict):
                envelope["properties"].pop("body_encoding", None)
        else:
            envelope["body"] = text

    def _broken(self, text: str) -> str:
        rng = self._rng
        at = rng.randrange(len(text) + 1)
        return rng.choice([text[:at], text[:at] + "*" + text[at:], text[:at] + "\n" + text[at:], text + "=", text * 2])

    # ---- the bytes ----

    def _damaged(self, raw: bytes) -> bytes:
        rng = self._rng
        data = bytearray(raw)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            end = at + rng.choice([1, 1, 2, 8, 100])
            kind = rng.randrange(7)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[at:at] = rng.randbytes(rng.choice([1, 2, 9]))
            elif kind == 2:
                del data[at:end]
            elif kind == 3:
                data[at:at] = data[at:end] * rng.choice([1, 1, 3, 50])
            elif kind == 4 and rng.random() < 0.4:
                del data[at:]
            elif kind == 5:
                data[at:at] = rng.choice(_INTRUDERS)
            elif kind == 6 and rng.random() < 0.1:
                data[at:at] = nested(rng).encode()
        return bytes(data)


def _read_body(envelope: dict[str, Any]) -> Any:
    """The body of an original as Python values; None for what is not plain JSON."""
    try:
        return json.loads(base64.b64decode(envelope["body"], validate=True))
    except ValueError:
        return None


def _text(value: Any) -> bytes:
    raws: list[str] = []
    text = json.dumps(_marked(value, raws), ensure_ascii=True)
    for number, raw in enumerate(raws):
        text = text.replace(json.dumps(_MARK.format(number)), raw, 1)
    return text.encode()


def _marked(value: Any, raws: list[str]) -> Any:
    if isinstance(value, Raw):
        raws.append(value)
        return _MARK.format(len(raws) - 1)
    if isinstance(value, dict):
        return {key: _marked(item, raws) for key, item in value.items()}
    return [_marked(item, raws) for item in value] if isinstance(value, list) else value
