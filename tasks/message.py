"""A decoded task message: plain data, made by codec.py, read by the executor, the request context and successors.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

# Why a message can never run: `MessageError.reason`.
OVERSIZE: Final = "oversize"
UNDECODABLE_ENVELOPE: Final = "undecodable_envelope"
UNDECODABLE_BODY: Final = "undecodable_body"
TOO_DEEP: Final = "too_deep"
REFUSED_CONTENT_TYPE: Final = "refused_content_type"
UNKNOWN_ENCODING: Final = "unknown_encoding"
UNKNOWN_COMPRESSION: Final = "unknown_compression"
MISSING_HEADER: Final = "missing_header"
BAD_HEADER: Final = "bad_header"
BAD_ID: Final = "bad_id"
BAD_ETA: Final = "bad_eta"
BAD_EXPIRES: Final = "bad_expires"
BAD_BODY_SHAPE: Final = "bad_body_shape"
PAYLOAD_MISSING: Final = "payload_missing"

#: What brokers can say with a priority.
MOST_PRIORITY: Final = 255


class Message:
    """One request to run a task. Hot path: a plain slots class, made once per message.

    `embed` holds `callbacks`, `errbacks`, `chain` and `chord` as they came; it is empty when all are null. `headers`
    and `properties` are the envelope's, except that for protocol 1 `headers` holds what stood in the body. `eta` and
    `expires` are seconds since the epoch. `queue` is the routing key, empty when the envelope names none.
    `origin_raw` is the envelope as it was received.
    """

    __slots__ = (
        "args",
        "embed",
        "eta",
        "expires",
        "headers",
        "id",
        "kwargs",
        "origin_raw",
        "properties",
        "protocol",
        "queue",
        "retries",
        "task",
    )

    def __init__(
        self,
        task_id: str,
        task: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        embed: dict[str, Any],
        headers: dict[str, Any],
        properties: dict[str, Any],
        retries: int,
        eta: float | None,
        expires: float | None,
        queue: str,
        protocol: int,
        origin_raw: bytes,
    ) -> None:
        self.id = task_id
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.embed = embed
        self.headers = headers
        self.properties = properties
        self.retries = retries
        self.eta = eta
        self.expires = expires
        self.queue = queue
        self.protocol = protocol
        self.origin_raw = origin_raw

    def text(self, name: str) -> str | None:
        """The header `name` if it is a text, else None: nothing depends on an id of another type being kept."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else None

    @property
    def time_limits(self) -> tuple[float | None, float | None]:
        """The message's own (hard, soft) time limits in seconds; None where it sets none, or nothing sensible."""
        limits = self.headers.get("timelimit")
        if not isinstance(limits, list | tuple) or len(limits) != 2:
            return None, None
        return _seconds(limits[0]), _seconds(limits[1])

    @property
    def priority(self) -> int:
        """The priority it was sent with, 0 (first) when it says nothing sensible."""
        priority = self.properties.get("priority")
        return priority if type(priority) is int and 0 < priority <= MOST_PRIORITY else 0

    def __repr__(self) -> str:
        return f"Message({self.task}[{self.id}], retries={self.retries}, queue={self.queue!r})"


def _seconds(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value > 0:
        return None
    try:
        float(value)  # what is sent to the master; a limit that is too long for it is no limit
    except OverflowError:
        return None
    return value  # type: ignore[no-any-return]
