"""Where the adapter meets S3: publishing stows what is large, pollers fetch it, an ack has it deleted.

Without the option `s3_bucket` all of it does nothing, and a pointer that arrives is delivered as it is: the worker
refuses it by its content type, and says why. Called by sqs, sqs_polls and sqs_settling.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from ..core import log_events, logs
from ..core.clock import SystemClock
from ..core.errors import TransportError
from .base import Envelope
from .sqs_claims import Claim
from .sqs_offload import DEFAULT_THRESHOLD, Bucket, PayloadLost, is_pointer, lost

logger = logging.getLogger("qworker.transports")

#: A message whose payload cannot be read now is looked at again after this.
_AGAIN_S: Final = 15.0


class Payloads:
    """The payloads of one transport. Any thread. `give_back` returns claims to their queue, not before a time."""

    def __init__(
        self, options: Mapping[str, Any], client: Callable[[], Any], give_back: Callable[[list[Claim], float], None]
    ) -> None:
        self._bucket: Bucket | None = None
        self._give_back = give_back
        self._boottime = SystemClock().boottime
        if options.get("s3_bucket"):
            threshold = int(options.get("s3_threshold_bytes", DEFAULT_THRESHOLD))
            self._bucket = Bucket(client, options["s3_bucket"], options.get("s3_prefix", "qworker/"), threshold)

    def check(self) -> None:
        """Raise ConfigError when there is no such bucket, TransportError when nobody answers."""
        if self._bucket is not None:
            self._bucket.check()

    def stowed(self, envelope: Envelope, most_bytes: int) -> Envelope:
        """Return what is to be sent for `envelope` to a queue that takes `most_bytes`: a pointer when it is large.

        Raises MessageError, ConfigError, TransportError.
        """
        if self._bucket is None or not self._bucket.is_large(envelope.raw, most_bytes):
            return envelope
        return replace(envelope, raw=self._bucket.stow(envelope.raw))

    def unpacked(self, claims: list[Claim]) -> list[Claim]:
        """Put the payloads into the claims that hold pointers; return what may be delivered now."""
        away = [claim for claim in claims if is_pointer(claim.received.raw)]
        if self._bucket is None or not away:
            return claims
        later: list[Claim] = []
        found = self._bucket.fetch_many([claim.received.raw for claim in away])
        for claim, content in zip(away, found, strict=True):
            if isinstance(content, TransportError):
                logs.say(
                    logger,
                    logging.WARNING,
                    log_events.PAYLOAD_UNREAD,
                    "{error}; its message is tried again in {wait_s:g} s",
                    error=content,
                    wait_s=_AGAIN_S,
                )
                later.append(claim)
            else:
                self._fill(claim, content)
        if later:
            self._give_back(later, time.time() + _AGAIN_S)
        now = self._boottime()
        # Fetching took longer than the claim: time gives it back.
        return [claim for claim in claims if claim not in later and claim.until > now]

    def _fill(self, claim: Claim, content: bytes | PayloadLost) -> None:
        pointer = claim.received.raw
        if isinstance(content, PayloadLost):
            content = lost(pointer, str(content))
        else:
            claim.pointer = pointer
        claim.received = claim.received._replace(raw=content)

    def acked(self, claim: Claim) -> None:
        """Its message is deleted for good: so is its payload, some time soon."""
        if self._bucket is not None and claim.pointer:
            self._bucket.forget(claim.pointer)

    def close(self, wait_s: float) -> None:
        """Delete what is still to be deleted. Never raises."""
        if self._bucket is not None:
            self._bucket.close(wait_s)
